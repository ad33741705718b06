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
    const struct lbfwd_peer *peers;
    const struct lbfwd_path *peer_paths;
    const uint16_t *peer_table;
    struct lbfwd_siphash seed;           /* of the flow hash */
};

static inline uint32_t mix64(uint64_t x)
{
    x *= 0x9e3779b97f4a7c15ULL; /* 2^64 / golden ratio: spreads; secrecy is not needed here */
    return (uint32_t)(x >> 32);
}

/* An address as struct lbfwd_vip has it, in two words. */
struct lbfwd_address { uint64_t low, high; };

static inline uint32_t vip_home(struct lbfwd_address address, uint8_t family, uint32_t slots)
{
    uint64_t high = rotate_left(address.high * 0xc2b2ae3d27d4eb4fULL, 31);
    return mix64(address.low ^ high ^ family) & (slots - 1);
}

static inline uint32_t service_home(uint32_t vip, uint8_t protocol, uint16_t port, uint32_t slots)
{
    return mix64((uint64_t)vip << 32 | (uint32_t)protocol << 16 | port) & (slots - 1);
}

static inline int is_vip(const struct lbfwd_vip *vip, struct lbfwd_address address, uint8_t family)
{
    return load_u64(vip->address) == address.low && load_u64(vip->address + 8) == address.high &&
           vip->family == family;
}

static inline const struct lbfwd_vip *probe_vip(const struct lbfwd_view *view,
                                                struct lbfwd_address address, uint8_t family)
{
    uint32_t mask = view->snapshot->vip_slots - 1, at = vip_home(address, family, mask + 1);

    for (; view->vips[at].family; at = (at + 1) & mask) /* a free slot exists: checked at take-up */
        if (LIKELY(is_vip(&view->vips[at], address, family)))
            return &view->vips[at];
    return NULL;
}

static inline struct lbfwd_address vip_address(const uint8_t *destination, uint8_t family)
{
    if (family == 4)
        return (struct lbfwd_address){load_u32(destination), 0};
    return (struct lbfwd_address){load_u64(destination), load_u64(destination + 8)};
}

static inline struct lbfwd_address vip_of(const struct lbfwd_packet *packet, uint8_t family)
{
    return vip_address(packet->ip + (family == 4 ? 16 : 24), family);
}

static inline int is_service(const struct lbfwd_service *service, uint32_t vip, uint8_t protocol,
                             uint16_t port)
{
    return service->vip == vip && service->protocol == protocol && service->port == port;
}

static inline const struct lbfwd_service *probe_service(const struct lbfwd_view *view, uint32_t vip,
                                                        uint8_t protocol, uint16_t port)
{
    uint32_t mask = view->snapshot->service_slots - 1;
    uint32_t at = service_home(vip, protocol, port, mask + 1);

    for (; view->services[at].protocol; at = (at + 1) & mask)
        if (LIKELY(is_service(&view->services[at], vip, protocol, port)))
            return &view->services[at];
    return NULL;
}

/* The exact port first, then "every port". */
static inline const struct lbfwd_service *find_service(const struct lbfwd_view *view,
                                                       const struct lbfwd_vip *vip,
                                                       const struct lbfwd_packet *packet)
{
    uint8_t protocol = packet->flow_protocol;
    const struct lbfwd_service *exact = probe_service(view, vip->id, protocol, packet->dst_port);

    return exact ? exact : probe_service(view, vip->id, protocol, 0);
}

/* Where a packet came in: the end of its key from the destination port on. */
STEP uint32_t door_of(const struct lbfwd_packet *packet, uint8_t family)
{
    return load_u32(packet->key + (family == 4 ? LBFWD_KEY4 : LBFWD_KEY6) - LBFWD_KEY_END + 2);
}

#define NO_DOOR UINT32_MAX /* its last byte is 0 always */

/* Most packets of a burst are for few services: the last one's of each family is looked at first. */
struct lbfwd_recent {
    struct lbfwd_address vip;
    uint32_t door;                       /* NO_DOOR: there is none yet */
    const struct lbfwd_service *service;
};

STEP int is_recent(const struct lbfwd_recent *recent, const struct lbfwd_packet *packet, uint8_t family)
{
    struct lbfwd_address vip = vip_of(packet, family);

    return recent->door == door_of(packet, family) && recent->vip.low == vip.low &&
           (family == 4 || recent->vip.high == vip.high);
}

static inline void maglev_prefetch(const struct lbfwd_view *view,
                                   const struct lbfwd_service *service, uint64_t hash)
{
    const uint16_t *table = (const uint16_t *)(view->arena + service->table_offset);
    __builtin_prefetch(&table[flow_bucket(hash, service->table_size)]);
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
