/* From a packet to its service and backend, in one published generation. docs/architecture.md. */
#ifndef LBFWD_LOOKUP_H
#define LBFWD_LOOKUP_H

#include "_parse.h"

/* A generation as a worker uses it: pointers into its mapping of the arena. */
struct lbfwd_view {
    const uint8_t *arena;
    const struct lbfwd_snapshot *snapshot;
    const struct lbfwd_vip *vips;
    const struct lbfwd_service *services;
    const struct lbfwd_backend *backends;
    const struct lbfwd_path *paths;
};

static inline uint32_t mix64(uint64_t x)
{
    x *= 0x9e3779b97f4a7c15ULL; /* 2^64 / golden ratio: spreads; secrecy is not needed here */
    return (uint32_t)(x >> 32);
}

static inline uint32_t vip_home(const uint8_t address[16], uint8_t family, uint32_t slots)
{
    uint64_t low = load_u64(address), high = load_u64(address + 8);
    return mix64(low ^ rotate_left(high * 0xc2b2ae3d27d4eb4fULL, 31) ^ family) & (slots - 1);
}

static inline uint32_t service_home(uint32_t vip, uint8_t protocol, uint16_t port, uint32_t slots)
{
    return mix64((uint64_t)vip << 32 | (uint32_t)protocol << 16 | port) & (slots - 1);
}

static inline const struct lbfwd_vip *find_vip(const struct lbfwd_view *view,
                                               const struct lbfwd_packet *packet)
{
    uint8_t address[16] = {0};
    uint32_t mask = view->snapshot->vip_slots - 1, at;

    memcpy(address, destination_of(packet), packet->family == 4 ? 4 : 16);
    at = vip_home(address, packet->family, mask + 1);
    for (; view->vips[at].family; at = (at + 1) & mask) { /* a free slot exists: checked at take-up */
        const struct lbfwd_vip *vip = &view->vips[at];
        if (LIKELY(vip->family == packet->family && !memcmp(vip->address, address, 16)))
            return vip;
    }
    return NULL;
}

static inline const struct lbfwd_service *probe_service(const struct lbfwd_view *view, uint32_t vip,
                                                        uint8_t protocol, uint16_t port)
{
    uint32_t mask = view->snapshot->service_slots - 1;
    uint32_t at = service_home(vip, protocol, port, mask + 1);

    for (; view->services[at].protocol; at = (at + 1) & mask) {
        const struct lbfwd_service *service = &view->services[at];
        if (LIKELY(service->vip == vip && service->protocol == protocol && service->port == port))
            return service;
    }
    return NULL;
}

/* The exact port first, then "every port". */
static inline const struct lbfwd_service *find_service(const struct lbfwd_view *view,
                                                       const struct lbfwd_vip *vip,
                                                       const struct lbfwd_packet *packet)
{
    const struct lbfwd_service *exact =
        probe_service(view, vip->id, packet->flow_protocol, packet->dst_port);
    return exact ? exact : probe_service(view, vip->id, packet->flow_protocol, 0);
}

/* The flow hash of the key, of which source affinity blanks ports and protocol. */
static inline uint64_t affinity_hash(const struct lbfwd_view *view,
                                     const struct lbfwd_service *service,
                                     struct lbfwd_packet *packet)
{
    if (service->affinity == LBFWD_AFFINITY_SOURCE)
        memset(packet->key + packet->key_length - 5, 0, 5);
    if (LIKELY(packet->key_length == LBFWD_KEY4)) /* constant lengths: the loop unrolls */
        return flow_hash(packet->key, LBFWD_KEY4, view->snapshot->hash_key);
    return flow_hash(packet->key, LBFWD_KEY6, view->snapshot->hash_key);
}

/* The backend slot that the service's Maglev table names, or LBFWD_MAX_BACKENDS for none. */
static inline uint32_t maglev_backend(const struct lbfwd_view *view,
                                      const struct lbfwd_service *service, uint64_t hash)
{
    const uint16_t *table = (const uint16_t *)(view->arena + service->table_offset);
    const uint32_t *members = (const uint32_t *)(view->arena + service->members_offset);
    uint32_t member, backend;

    if (UNLIKELY(!service->table_size))
        return LBFWD_MAX_BACKENDS;
    member = table[flow_bucket(hash, service->table_size)];
    if (UNLIKELY(member >= service->members)) /* LBFWD_NO_MEMBER too */
        return LBFWD_MAX_BACKENDS;
    backend = members[member];
    return LIKELY(backend < view->snapshot->backends) ? backend : LBFWD_MAX_BACKENDS;
}

/* A flow stays on one of a multipath route's next hops. The low half of the hash: the bucket
 * took the high one. */
static inline const struct lbfwd_path *choose_path(const struct lbfwd_view *view, uint32_t backend,
                                                   uint64_t hash)
{
    const struct lbfwd_backend *b = &view->backends[backend];
    if (UNLIKELY(!b->path_count))
        return NULL;
    return &view->paths[b->path_first + (uint32_t)(((hash & 0xffffffff) * b->path_count) >> 32)];
}

#endif
