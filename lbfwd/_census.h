/* Live flows by service and backend: what a change would break, what a drained backend still has.
 * Reads the flow tables beside the workers that write them. */
#ifndef LBFWD_CENSUS_H
#define LBFWD_CENSUS_H

#include "_flow.h"
#include "_state.h"

/* Another worker has seen the flow since, or in the same second and comes before us: a flow that
 * went from one worker to another left an older entry behind, and is one flow. */
static inline int census_superseded(const struct lbfwd_flows *flows, uint64_t key, uint64_t value,
                                    const struct lbfwd_flow_context *context)
{
    const struct lbfwd_flow_home home = flow_home(flows, key);
    uint32_t service = flow_service(value, key), age = flow_age_s(value, context->now_s);

    for (uint32_t worker = 0; worker < flows->workers; worker++) {
        uint64_t other;
        if (worker == flows->slot)
            continue;
        other = read_flow(flows, worker, &home, service, context);
        if (other && flow_age_s(other, context->now_s) < age + (worker < flows->slot))
            return 1;
    }
    return 0;
}

/* The row of a service and backend, made where there is none; NULL: no room. */
static inline struct lbfwd_flow_row *census_row(struct lbfwd_flow_row *rows, uint32_t count,
                                                uint64_t key, uint64_t value)
{
    const struct lbfwd_flow_row wanted = {.service = flow_service(value, key),
                                          .backend = flow_backend(value),
                                          .incarnation = flow_incarnation(value)};
    uint32_t at = (wanted.backend * 0x9e3779b1u ^ wanted.service * 0x85ebca6bu ^
                   wanted.incarnation) & (count - 1);

    for (uint32_t tries = 0; tries < count; tries++, at = (at + 1) & (count - 1)) {
        struct lbfwd_flow_row *row = &rows[at];
        if (!row->live)
            *row = wanted;
        if (row->service == wanted.service && row->backend == wanted.backend &&
            row->incarnation == wanted.incarnation)
            return row;
    }
    return NULL;
}

/* Counts one entry; -ENOSPC: there is no room for its row. */
static inline int census_entry(const struct lbfwd_flows *flows, const struct lbfwd_flow_entry *entry,
                               const struct lbfwd_flow_context *context,
                               struct lbfwd_flow_row *rows, uint32_t count)
{
    uint64_t key = READ_SHARED(entry->key), value = READ_SHARED(entry->value);
    struct lbfwd_flow_row *row;

    if (READ_SHARED(entry->key) != key || flow_expired(value, context) ||
        census_superseded(flows, key, value, context))
        return 0;
    row = census_row(rows, count, key, value);
    if (!row)
        return -ENOSPC;
    row->live++;
    row->closing += flow_state(value) == LBFWD_FLOW_CLOSING;
    return 0;
}

/* Whether the memory holds the flow tables that its header speaks of. */
static inline int census_check(const struct lbfwd_flows_header *header, uint64_t bytes)
{
    if (bytes < LBFWD_FLOWS_HEADER || header->magic != FLOWS_MAGIC || header->abi != LBFWD_ABI)
        return -EBADMSG;
    return bytes - LBFWD_FLOWS_HEADER <
                   (uint64_t)header->workers * header->buckets * sizeof(struct lbfwd_flow_bucket)
               ? -EBADMSG : 0;
}

static inline int flow_census(const void *memory, uint64_t bytes, const uint16_t *lifetimes_s,
                              uint16_t now_s, struct lbfwd_flow_row *rows, uint32_t count)
{
    const struct lbfwd_flows_header *header = memory;
    const struct lbfwd_flow_context context = flow_context_at(lifetimes_s, now_s);
    struct lbfwd_flows flows = {0};
    int error = is_power_of_two(count) ? census_check(header, bytes) : -EINVAL;

    if (error)
        return error;
    flows.all = (const void *)((const uint8_t *)memory + LBFWD_FLOWS_HEADER);
    flows.buckets = header->buckets;
    flows.workers = header->workers;
    for (flows.slot = 0; flows.slot < flows.workers; flows.slot++) {
        const struct lbfwd_flow_bucket *region = flow_region(&flows, flows.slot);
        for (uint64_t i = 0; !error && i < (uint64_t)flows.buckets * LBFWD_FLOW_WAYS; i++)
            error = census_entry(&flows, &region[i / LBFWD_FLOW_WAYS].ways[i % LBFWD_FLOW_WAYS],
                                 &context, rows, count);
    }
    return error;
}

#endif
