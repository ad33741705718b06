/* How full a worker's flow table is. Reads it beside the worker that writes it. */
#ifndef LBFWD_OCCUPANCY_H
#define LBFWD_OCCUPANCY_H

#include "_census.h"

/* Live entries in a worker's region; -EBADMSG: no flow tables, -EINVAL: no such worker. */
static inline int64_t flows_in_use(const void *memory, uint64_t bytes, const uint16_t *lifetimes_s,
                                   uint16_t now_s, uint32_t worker)
{
    const struct lbfwd_flows_header *header = memory;
    const struct lbfwd_flow_context context = flow_context_at(lifetimes_s, now_s);
    const struct lbfwd_flow_bucket *region;
    int64_t live = 0;
    int error = census_check(header, bytes);

    if (error || worker >= header->workers)
        return error ? error : -EINVAL;
    region = (const void *)((const uint8_t *)memory + LBFWD_FLOWS_HEADER);
    region += (uint64_t)worker * header->buckets;
    for (uint64_t i = 0; i < (uint64_t)header->buckets * LBFWD_FLOW_WAYS; i++)
        live += !flow_expired(READ_SHARED(region[i / LBFWD_FLOW_WAYS].ways[i % LBFWD_FLOW_WAYS].value),
                              &context);
    return live;
}

#endif
