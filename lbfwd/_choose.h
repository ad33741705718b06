/* Who serves a flow: its entry in the flow table, another worker's entry, the Maglev table. */
#ifndef LBFWD_CHOOSE_H
#define LBFWD_CHOOSE_H

#include "_job.h"
#include "_reply.h"
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

/* Makes the flow's entry, or writes the one it has. */
static inline void remember(struct lbfwd_worker *w, const struct lbfwd_job *job,
                            const struct lbfwd_flow_context *context, uint32_t backend,
                            enum lbfwd_flow_state state)
{
    struct lbfwd_flow_entry *entry = job->entry;
    uint64_t key = job->home.key;

    if (!entry)
        entry = flow_place(&w->flows, &job->home, context);
    if (!entry) {
        count_event(w, LBFWD_EVENT_FLOW_TABLE_FULL);
        return;
    }
    if (entry->key != key && !flow_expired(entry->value, context))
        count_event(w, LBFWD_EVENT_FLOW_EVICTED);
    flow_write(entry, key, flow_value(backend, w->view.backends[backend].incarnation,
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

/* Flows that the table does not know. Of one that comes twice in the burst the first packet makes
 * the entry that the second one finds. */
static void choose_missed(struct lbfwd_worker *w, struct lbfwd_job **missed, uint32_t n,
                          const struct lbfwd_flow_context *context)
{
    uint64_t made = 0; /* a bit for each key that has come, by the key's low bits */

    for (uint32_t i = 0; i < n; i++) {
        struct lbfwd_job *job = missed[i];
        uint64_t bit = 1ULL << (job->home.key & 63);
        if (UNLIKELY(made & bit))
            job->entry = flow_find(&w->flows, &job->home, context);
        made |= bit;
        choose(w, job, choose_backend(w, job, context));
    }
}

/* Flows that are not in their first bucket: in the second, or in none. */
static void choose_second(struct lbfwd_worker *w, struct lbfwd_job **jobs, uint32_t n,
                          const struct lbfwd_flow_context *context)
{
    uint32_t missed = 0;

    for (uint32_t i = 0; i < n; i++) {
        struct lbfwd_job *job = jobs[i];
        job->entry = find_in_second(&w->flows, &job->home, context);
        if (job->entry) {
            choose(w, job, choose_backend(w, job, context));
        } else {
            prefetch_choice(w, job);
            jobs[missed++] = job;
        }
    }
    choose_missed(w, jobs, missed, context);
}

/* Most flows are found in their first bucket. For each further look the memory is asked for, and the
 * look taken when all others have had theirs. */
static void choose_all(struct lbfwd_worker *w, struct lbfwd_job *jobs, uint32_t n)
{
    struct lbfwd_flow_context context = flow_context(w);
    struct lbfwd_job *left[LBFWD_BURST];
    uint32_t count = 0;

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
            left[count++] = job;
        }
    }
    choose_second(w, left, count, &context);
}

#endif
