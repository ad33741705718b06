/* Who serves a flow: its entry in the flow table, another worker's entry, the Maglev table. */
#ifndef LBFWD_CHOOSE_H
#define LBFWD_CHOOSE_H

#include "_job.h"
#include "_reply.h"
#include "_vacancy.h"
#include "_worker.h"

/* A backend that is in the service's pool, is the same as when the entry was made, and can be
 * reached. (One that drains has no share of the table, but is all that.) */
static inline int may_serve(const struct lbfwd_view *view, const struct lbfwd_service *service,
                            uint64_t value)
{
    uint32_t number = flow_backend(value);
    const struct lbfwd_backend *backend = &view->backends[number];
    const uint32_t mask = (1u << FLOW_INCARNATION_BITS) - 1;

    return number < view->snapshot->backends && backend->pool == service->pool &&
           (backend->incarnation & mask) == flow_incarnation(value) && backend->path_count;
}

/* Whether an entry stands for one TCP connection. With source affinity it stands for all of a
 * client's, which begin and end without it. */
static inline int is_connection(const struct lbfwd_service *service,
                                const struct lbfwd_packet *packet)
{
    return service->affinity == LBFWD_AFFINITY_5TUPLE && packet->flow_protocol == IPPROTO_TCP;
}

/* A bare SYN. */
static inline int begins_connection(const struct lbfwd_packet *packet)
{
    return (packet->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

/* No worker has an entry that matters. */
static inline int begins_flow(const struct lbfwd_service *service, const struct lbfwd_packet *packet)
{
    return is_connection(service, packet) && begins_connection(packet);
}

/* Reaches some worker, not its flow's: the fanout program sees no ports of the flow in it. */
static inline int is_astray(const struct lbfwd_packet *packet)
{
    return packet->fragmented || packet->kind == LBFWD_KIND_ICMP_ERROR;
}

/* The state of a flow after this packet. */
static inline enum lbfwd_flow_state next_state(enum lbfwd_flow_state state, int connection,
                                               const struct lbfwd_packet *packet)
{
    if (connection)
        return state == LBFWD_FLOW_CLOSING || packet->tcp_flags & (TCP_FIN | TCP_RST)
                   ? LBFWD_FLOW_CLOSING
                   : LBFWD_FLOW_TCP;
    return packet->flow_protocol == IPPROTO_TCP ? LBFWD_FLOW_TCP : LBFWD_FLOW_UDP;
}

/* Seen again: confirmed, and young again. Written only when that changes something: the line
 * stays shared with workers that read it. */
static inline void touch(struct lbfwd_flow_entry *entry, uint64_t old, enum lbfwd_flow_state state,
                         uint16_t now_s)
{
    uint64_t value = (old & ((1ULL << FLOW_STATE_SHIFT) - 1)) | (uint64_t)state << FLOW_STATE_SHIFT |
                     (uint64_t)now_s << FLOW_SEEN_SHIFT;

    if (value != old)
        WRITE_SHARED(entry->value, value);
}

/* Where no place is free, an unconfirmed flow gives way. */
static __attribute__((noinline)) struct lbfwd_flow_entry *
evict(struct lbfwd_worker *w, const struct lbfwd_job *job, const struct lbfwd_flow_context *context)
{
    struct lbfwd_flow_entry *entry = flow_unconfirmed(&w->flows, &job->home, context);

    count_event(w, entry ? LBFWD_EVENT_FLOW_EVICTED : LBFWD_EVENT_FLOW_TABLE_FULL);
    return entry;
}

/* Makes the flow's entry, or writes the one it has. */
static inline void remember(struct lbfwd_worker *w, const struct lbfwd_job *job,
                            const struct lbfwd_flow_context *context, uint32_t backend,
                            enum lbfwd_flow_state state)
{
    struct lbfwd_flow_entry *entry = job->entry;

    if (!entry)
        entry = flow_vacancy(&w->flows, &job->home, context);
    if (UNLIKELY(!entry))
        entry = evict(w, job, context);
    if (LIKELY(entry))
        flow_write(entry, job->home.key,
                   flow_value(backend, w->view.backends[backend].incarnation,
                              job->service->counter, state, context->now_s));
}

/* The last that any worker saw of the flow; of two in one second the other's, for its packets reach
 * that worker, and ours only strays. */
static inline uint64_t latest_value(const struct lbfwd_worker *w, const struct lbfwd_job *job,
                                    const struct lbfwd_flow_context *context)
{
    const struct lbfwd_flow_entry *entry = job->entry;
    uint64_t elsewhere =
        flow_find_elsewhere(&w->flows, &job->home, job->service->counter, context);

    if (entry && (!elsewhere || flow_age_s(entry->value, context->now_s) <
                                    flow_age_s(elsewhere, context->now_s)))
        return entry->value;
    return elsewhere;
}

/* The backend of the flow's latest entry in any worker's table, or LBFWD_MAX_BACKENDS. */
static inline uint32_t follow_entry(struct lbfwd_worker *w, const struct lbfwd_job *job,
                                    const struct lbfwd_flow_context *context)
{
    uint64_t value = latest_value(w, job, context);
    uint32_t backend = flow_backend(value);

    if (!value || !may_serve(&w->view, job->service, value))
        return LBFWD_MAX_BACKENDS;
    if (!job->entry || backend != flow_backend(job->entry->value))
        count_event(w, LBFWD_EVENT_FLOW_FOUND_ELSEWHERE);
    if (job->packet.kind == LBFWD_KIND_FLOW)
        remember(w, job, context, backend,
                 next_state(flow_state(value), is_connection(job->service, &job->packet),
                            &job->packet));
    return backend;
}

/* A flow that this worker's own table does not decide: it has no usable entry, or may have an old
 * one. */
static __attribute__((noinline)) uint32_t choose_anew(struct lbfwd_worker *w,
                                                      const struct lbfwd_job *job,
                                                      const struct lbfwd_flow_context *context)
{
    int begins = begins_flow(job->service, &job->packet);
    enum lbfwd_flow_state state = LBFWD_FLOW_UNCONFIRMED;
    uint32_t backend = begins ? LBFWD_MAX_BACKENDS : follow_entry(w, job, context);

    if (backend < LBFWD_MAX_BACKENDS)
        return backend;
    backend = maglev_backend(&w->view, job->service, job->hash);
    if (backend >= LBFWD_MAX_BACKENDS || job->packet.kind != LBFWD_KIND_FLOW)
        return backend;
    if (job->entry && !begins) {
        state = flow_state(job->entry->value);
        count_event(w, LBFWD_EVENT_FLOW_REDIRECTED);
    } else {
        count_new_flow(w, job->service->counter, backend);
    }
    remember(w, job, context, backend, state);
    return backend;
}

/* Asks for the memory that the choice for a new flow reads. */
static inline void prefetch_choice(const struct lbfwd_worker *w, const struct lbfwd_job *job)
{
    maglev_prefetch(&w->view, job->service, job->hash);
    if (w->flows.workers == 1 || begins_flow(job->service, &job->packet))
        return;
    for (uint32_t worker = 0; worker < w->flows.workers; worker++) {
        const struct lbfwd_flow_bucket *region = flow_region(&w->flows, worker);
        __builtin_prefetch(&region[job->home.first]);
        __builtin_prefetch(&region[second_of(&w->flows, &job->home)]);
    }
}

/* Changes nothing about its flow, once that is confirmed. */
STEP int is_ordinary(const struct lbfwd_packet *packet)
{
    const uint32_t flags = TCP_SYN | TCP_FIN | TCP_RST;
    return !(load_u32(&packet->kind) & (0xffff | flags << 16)); /* neither kind, nor fragmented */
}

_Static_assert(LBFWD_KIND_FLOW == 0 &&
               offsetof(struct lbfwd_packet, fragmented) == offsetof(struct lbfwd_packet, kind) + 1 &&
               offsetof(struct lbfwd_packet, tcp_flags) == offsetof(struct lbfwd_packet, kind) + 2,
               "side by side");

/* Most packets leave their flow's entry as it is. */
STEP int is_settled(const struct lbfwd_worker *w, const struct lbfwd_job *job, uint64_t value,
                    const struct lbfwd_flow_context *context)
{
    return flow_is_fresh(value, context) && is_ordinary(&job->packet) &&
           may_serve(&w->view, job->service, value);
}

/* The backend's slot, or LBFWD_MAX_BACKENDS when the service has none. */
static __attribute__((noinline)) uint32_t choose_backend(struct lbfwd_worker *w,
                                                         const struct lbfwd_job *job,
                                                         const struct lbfwd_flow_context *context)
{
    const struct lbfwd_packet *packet = &job->packet;
    struct lbfwd_flow_entry *entry = job->entry;
    enum lbfwd_flow_state state;
    uint64_t value;
    int connection;

    if (UNLIKELY(!entry || !may_serve(&w->view, job->service, value = entry->value)))
        return choose_anew(w, job, context);
    connection = is_connection(job->service, packet);
    state = flow_state(value);
    if (UNLIKELY(connection && begins_connection(packet))) {
        if (state == LBFWD_FLOW_CLOSING)
            return choose_anew(w, job, context); /* the ports are used again */
    } else if (UNLIKELY(is_astray(packet))) {
        return choose_anew(w, job, context);
    }
    touch(entry, value, next_state(state, connection, packet), context->now_s);
    return flow_backend(value);
}

/* Who serves it, and by which way. */
STEP void choose(struct lbfwd_worker *w, struct lbfwd_job *job, uint32_t backend)
{
    job->backend = backend;
    if (UNLIKELY(backend >= LBFWD_MAX_BACKENDS))
        return;
    job->path = choose_path(&w->view, backend, job->hash);
    __builtin_prefetch(job->path);
}

/* Memory is asked for so many looks before the one that needs it: enough to hide its latency, few
 * enough to be under way at once. docs/benchmarks.md */
#define LOOKS_AHEAD 16

struct lbfwd_queue {
    struct lbfwd_job *jobs[LBFWD_BURST];
    uint32_t first, end;
};

/* Flows that are not in their first bucket. */
struct lbfwd_misses {
    struct lbfwd_queue second;   /* those whose second bucket was asked for */
    struct lbfwd_queue anew;     /* those whose choice's memory was */
    uint64_t made[16];           /* a bit for each key that has made its entry, by the key's low bits */
};

STEP void enqueue(struct lbfwd_queue *queue, struct lbfwd_job *job)
{
    queue->jobs[queue->end++] = job;
}

/* The first of more than are to stay, or NULL. */
STEP struct lbfwd_job *dequeue(struct lbfwd_queue *queue, uint32_t stay)
{
    return queue->end - queue->first > stay ? queue->jobs[queue->first++] : NULL;
}

/* A flow that the table does not know. Of one that comes twice in the burst the first packet makes
 * the entry that the second one finds. */
STEP void choose_missed(struct lbfwd_worker *w, struct lbfwd_misses *misses, struct lbfwd_job *job,
                        const struct lbfwd_flow_context *context)
{
    uint64_t key = job->home.key, bit = 1ULL << (key & 63), *made = &misses->made[key >> 6 & 15];

    if (UNLIKELY(*made & bit))
        job->entry = flow_find(&w->flows, &job->home, context);
    *made |= bit;
    choose(w, job, job->entry ? choose_backend(w, job, context) : choose_anew(w, job, context));
}

/* A flow that is in its second bucket, or in none. */
STEP void choose_second(struct lbfwd_worker *w, struct lbfwd_misses *misses, struct lbfwd_job *job,
                        const struct lbfwd_flow_context *context)
{
    job->entry = find_in_second(&w->flows, &job->home, context);
    if (job->entry) {
        choose(w, job, choose_backend(w, job, context));
        return;
    }
    prefetch_choice(w, job);
    enqueue(&misses->anew, job);
}

/* One look at each queue that holds more than are to stay. Returns whether there was any. */
STEP int choose_waiting(struct lbfwd_worker *w, struct lbfwd_misses *misses, uint32_t stay,
                        const struct lbfwd_flow_context *context)
{
    struct lbfwd_job *second = dequeue(&misses->second, stay), *anew;

    if (second)
        choose_second(w, misses, second, context);
    if ((anew = dequeue(&misses->anew, stay)))
        choose_missed(w, misses, anew, context);
    return second || anew;
}

/* Most flows are found in their first bucket. For each further look the memory is asked for, and the
 * look taken when some others have had theirs. */
static void choose_all(struct lbfwd_worker *w, struct lbfwd_job *jobs, uint32_t n)
{
    struct lbfwd_flow_context context = flow_context(w);
    struct lbfwd_misses misses;

    misses.second.first = misses.second.end = misses.anew.first = misses.anew.end = 0;
    memset(misses.made, 0, sizeof misses.made);
    for (uint32_t i = 0; i < n; i++) {
        struct lbfwd_job *job = &jobs[i];
        struct lbfwd_flow_entry *entry;
        if (UNLIKELY(!job->service))
            continue;
        entry = find_in_first(&w->flows, &job->home, &context);
        if (LIKELY(entry && is_settled(w, job, entry->value, &context))) {
            choose(w, job, flow_backend(entry->value));
        } else if ((job->entry = entry)) {
            choose(w, job, choose_backend(w, job, &context));
        } else {
            __builtin_prefetch(&w->flows.own[second_of(&w->flows, &job->home)]);
            enqueue(&misses.second, job);
            choose_waiting(w, &misses, LOOKS_AHEAD, &context);
        }
    }
    while (choose_waiting(w, &misses, 0, &context))
        ;
}

#endif
