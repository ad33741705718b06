/* Who serves a flow: its entry in the flow table, another worker's entry, the Maglev table. */
#ifndef LBFWD_CHOOSE_H
#define LBFWD_CHOOSE_H

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

/* A bare SYN: no worker has an entry that matters. With source affinity a client's entry stands for
 * all its connections, which begin and end without it. */
static inline int begins_flow(const struct lbfwd_service *service, const struct lbfwd_packet *packet)
{
    return service->affinity == LBFWD_AFFINITY_5TUPLE && packet->flow_protocol == IPPROTO_TCP &&
           (packet->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

/* Reaches some worker, not its flow's: the fanout program sees no ports of the flow in it. */
static inline int is_astray(const struct lbfwd_packet *packet)
{
    return packet->fragmented || packet->kind == LBFWD_KIND_ICMP_ERROR;
}

/* The state of a flow after this packet. */
static inline enum lbfwd_flow_state next_state(enum lbfwd_flow_state state,
                                               const struct lbfwd_service *service,
                                               const struct lbfwd_packet *packet)
{
    if (packet->flow_protocol != IPPROTO_TCP)
        return LBFWD_FLOW_UDP;
    if (service->affinity == LBFWD_AFFINITY_5TUPLE &&
        (state == LBFWD_FLOW_CLOSING || packet->tcp_flags & (TCP_FIN | TCP_RST)))
        return LBFWD_FLOW_CLOSING;
    return LBFWD_FLOW_TCP;
}

/* Seen again: confirmed, and young again. Written only when that changes something: the line
 * stays shared with workers that read it. */
static inline void touch(struct lbfwd_flow_entry *entry, const struct lbfwd_service *service,
                         const struct lbfwd_packet *packet, uint16_t now_s)
{
    enum lbfwd_flow_state state = next_state(flow_state(entry->value), service, packet);
    uint64_t value;

    value = (entry->value & ((1ULL << FLOW_STATE_SHIFT) - 1)) |
            (uint64_t)state << FLOW_STATE_SHIFT | (uint64_t)now_s << FLOW_SEEN_SHIFT;
    if (value != entry->value)
        WRITE_SHARED(entry->value, value);
}

static inline void remember(struct lbfwd_worker *w, struct lbfwd_flow_entry *entry, uint64_t key,
                            const struct lbfwd_service *service, uint32_t backend,
                            enum lbfwd_flow_state state)
{
    struct lbfwd_flow_context context = flow_context(w);

    if (!entry)
        entry = flow_place(&w->flows, key, &context);
    if (!entry) {
        count_event(w, LBFWD_EVENT_FLOW_TABLE_FULL);
        return;
    }
    if (entry->key != key && !flow_expired(entry->value, &context))
        count_event(w, LBFWD_EVENT_FLOW_EVICTED);
    flow_write(entry, key, flow_value(backend, w->view.backends[backend].incarnation,
                                      service->counter, state, context.now_s));
}

/* The last that any worker saw of the flow; of two in one second the other's, for its packets reach
 * that worker, and ours only strays. */
static inline uint64_t latest_value(const struct lbfwd_worker *w, const struct lbfwd_flow_entry *entry,
                                    uint64_t key, uint32_t service,
                                    const struct lbfwd_flow_context *context)
{
    uint64_t elsewhere = flow_find_elsewhere(&w->flows, key, service, context);

    if (entry && (!elsewhere || flow_age_s(entry->value, context->now_s) <
                                    flow_age_s(elsewhere, context->now_s)))
        return entry->value;
    return elsewhere;
}

/* A flow that this worker's own table does not decide: it has no usable entry, or may have an old
 * one. */
static inline uint32_t choose_anew(struct lbfwd_worker *w, const struct lbfwd_service *service,
                                   const struct lbfwd_packet *packet, uint64_t hash,
                                   struct lbfwd_flow_entry *entry)
{
    struct lbfwd_flow_context context = flow_context(w);
    uint64_t key = flow_key(hash, service->counter);
    enum lbfwd_flow_state state = LBFWD_FLOW_UNCONFIRMED;
    uint32_t backend;

    if (!begins_flow(service, packet)) {
        uint64_t value = latest_value(w, entry, key, service->counter, &context);
        if (value && may_serve(&w->view, service, value)) {
            if (!entry || flow_backend(value) != flow_backend(entry->value))
                count_event(w, LBFWD_EVENT_FLOW_FOUND_ELSEWHERE);
            if (packet->kind == LBFWD_KIND_FLOW)
                remember(w, entry, key, service, flow_backend(value),
                         next_state(flow_state(value), service, packet));
            return flow_backend(value);
        }
    }
    backend = maglev_backend(&w->view, service, hash);
    if (backend >= LBFWD_MAX_BACKENDS || packet->kind != LBFWD_KIND_FLOW)
        return backend;
    if (entry && !begins_flow(service, packet)) {
        state = flow_state(entry->value);
        count_event(w, LBFWD_EVENT_FLOW_REDIRECTED);
    } else {
        count_event(w, LBFWD_EVENT_FLOW_NEW);
    }
    remember(w, entry, key, service, backend, state);
    return backend;
}

/* The backend's slot, or LBFWD_MAX_BACKENDS when the service has none. */
static inline uint32_t choose_backend(struct lbfwd_worker *w, const struct lbfwd_service *service,
                                      const struct lbfwd_packet *packet, uint64_t hash)
{
    struct lbfwd_flow_context context = flow_context(w);
    struct lbfwd_flow_entry *entry = flow_find(&w->flows, flow_key(hash, service->counter), &context);

    if (UNLIKELY(!entry || !may_serve(&w->view, service, entry->value)))
        return choose_anew(w, service, packet, hash, entry);
    if (UNLIKELY(begins_flow(service, packet))) {
        if (flow_state(entry->value) == LBFWD_FLOW_CLOSING)
            return choose_anew(w, service, packet, hash, entry); /* the ports are used again */
    } else if (UNLIKELY(is_astray(packet))) {
        return choose_anew(w, service, packet, hash, entry);
    }
    touch(entry, service, packet, context.now_s);
    return flow_backend(entry->value);
}

#endif
