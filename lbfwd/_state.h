/* Forwarding state in shared memory: building, checking, publishing, taking up. docs/architecture.md. */
#ifndef LBFWD_STATE_H
#define LBFWD_STATE_H

#include <errno.h>

#include "_lookup.h"

#define CONTROL_MAGIC 0x6c74636477666c62ULL  /* "blfwdctl" in memory order */
#define SNAPSHOT_MAGIC 0x706e73647766626cULL /* "lbfwdsnp" */
#define FLOWS_MAGIC 0x776f6c6664776662ULL    /* "bfwdflow" */
#define ARENA_UNIT 64

static inline int is_power_of_two(uint32_t n)
{
    return n && !(n & (n - 1));
}

static inline int vip_insert(struct lbfwd_vip *vips, uint32_t slots, const struct lbfwd_vip *vip)
{
    struct lbfwd_address address = {load_u64(vip->address), load_u64(vip->address + 8)};
    uint32_t at = vip_home(address, vip->family, slots);

    for (uint32_t tries = 1; tries < slots; tries++, at = (at + 1) & (slots - 1)) {
        if (!vips[at].family) {
            vips[at] = *vip;
            return 0;
        }
    }
    return -ENOSPC;
}

static inline int service_insert(struct lbfwd_service *services, uint32_t slots,
                                 const struct lbfwd_service *service)
{
    uint32_t at = service_home(service->vip, service->protocol, service->port, slots);

    for (uint32_t tries = 1; tries < slots; tries++, at = (at + 1) & (slots - 1)) {
        if (!services[at].protocol) {
            services[at] = *service;
            return 0;
        }
    }
    return -ENOSPC;
}

/* Whether count items lie inside the arena, aligned. */
static inline int inside(uint64_t bytes, uint64_t offset, uint64_t count, uint64_t item)
{
    return offset % ARENA_UNIT == 0 && offset <= bytes && count <= (bytes - offset) / item;
}

static inline int check_services(const uint8_t *arena, uint64_t bytes,
                                 const struct lbfwd_snapshot *snapshot)
{
    const struct lbfwd_service *services = (const void *)(arena + snapshot->services_offset);
    uint32_t vacant = 0;

    for (uint32_t i = 0; i < snapshot->service_slots; i++) {
        const struct lbfwd_service *s = &services[i];
        vacant += !s->protocol;
        if (!s->protocol)
            continue;
        if (s->counter >= LBFWD_MAX_SERVICES ||
            !inside(bytes, s->table_offset, s->table_size, sizeof(uint16_t)) ||
            !inside(bytes, s->members_offset, s->members, sizeof(uint32_t)))
            return -EBADMSG;
    }
    return vacant ? 0 : -EBADMSG; /* a probe ends at a vacant slot */
}

static inline int check_vips(const uint8_t *arena, const struct lbfwd_snapshot *snapshot)
{
    const struct lbfwd_vip *vips = (const void *)(arena + snapshot->vips_offset);

    for (uint32_t i = 0; i < snapshot->vip_slots; i++)
        if (!vips[i].family)
            return 0;
    return -EBADMSG;
}

static inline int is_path(const struct lbfwd_path *path)
{
    return path->tx < LBFWD_MAX_TX && path->entropy_bits <= 32 &&
           (path->header_len == ETHERNET_BYTES + IPV4_BYTES + GRE_BYTES ||
            path->header_len == ETHERNET_BYTES + IPV6_BYTES + GRE_BYTES);
}

static inline int check_backends(const uint8_t *arena, uint64_t bytes,
                                 const struct lbfwd_snapshot *snapshot)
{
    const struct lbfwd_backend *backends = (const void *)(arena + snapshot->backends_offset);
    const struct lbfwd_path *paths = (const void *)arena;

    for (uint32_t i = 0; i < snapshot->backends; i++) {
        uint64_t end = (uint64_t)backends[i].path_first + backends[i].path_count;
        if (end > bytes / sizeof *paths)
            return -EBADMSG;
        for (uint64_t n = backends[i].path_first; n < end; n++)
            if (!is_path(&paths[n]))
                return -EBADMSG;
    }
    return 0;
}

static inline int check_peers(const uint8_t *arena, const struct lbfwd_snapshot *snapshot)
{
    const struct lbfwd_peer *peers = (const void *)(arena + snapshot->peers_offset);
    const struct lbfwd_path *paths = (const void *)(arena + snapshot->peer_paths_offset);

    for (uint32_t i = 0; i < snapshot->peers; i++)
        if ((uint64_t)peers[i].path_first + peers[i].path_count > snapshot->peer_paths)
            return -EBADMSG;
    for (uint32_t n = 0; n < snapshot->peer_paths; n++)
        if (!is_path(&paths[n]))
            return -EBADMSG;
    return 0;
}

static inline int peers_are_inside(uint64_t bytes, const struct lbfwd_snapshot *s)
{
    return s->peers <= LBFWD_MAX_PEERS && (!s->peers || s->here < s->peers) &&
           inside(bytes, s->peers_offset, s->peers, sizeof(struct lbfwd_peer)) &&
           inside(bytes, s->peer_paths_offset, s->peer_paths, sizeof(struct lbfwd_path)) &&
           inside(bytes, s->peer_table_offset, s->peer_table_size, sizeof(uint16_t));
}

/* Whether it is a snapshot, and its arrays lie in the arena: in as much time for few backends as
 * for many, so that a worker can ask between two bursts. */
static inline int snapshot_head_check(const uint8_t *arena, uint64_t bytes, uint64_t offset)
{
    const struct lbfwd_snapshot *s = (const void *)(arena + offset);

    if (!inside(bytes, offset, 1, sizeof *s) || s->magic != SNAPSHOT_MAGIC)
        return -EBADMSG;
    if (!is_power_of_two(s->vip_slots) || !is_power_of_two(s->service_slots) ||
        s->backends > LBFWD_MAX_BACKENDS ||
        !inside(bytes, s->vips_offset, s->vip_slots, sizeof(struct lbfwd_vip)) ||
        !inside(bytes, s->services_offset, s->service_slots, sizeof(struct lbfwd_service)) ||
        !inside(bytes, s->backends_offset, s->backends, sizeof(struct lbfwd_backend)) ||
        !peers_are_inside(bytes, s))
        return -EBADMSG;
    return 0;
}

/* Everything a worker relies on without looking again; the supervisor asks before it publishes.
 * Maglev entries and members are the exception: they are too many, and are checked at each
 * look-up. */
static inline int snapshot_check(const uint8_t *arena, uint64_t bytes, uint64_t offset)
{
    const struct lbfwd_snapshot *s = (const void *)(arena + offset);
    int bad = snapshot_head_check(arena, bytes, offset);

    if (!bad)
        bad = check_services(arena, bytes, s);
    if (!bad)
        bad = check_vips(arena, s);
    if (!bad)
        bad = check_peers(arena, s);
    return bad ? bad : check_backends(arena, bytes, s);
}

static inline struct lbfwd_view view_of(const uint8_t *arena, uint64_t offset)
{
    const struct lbfwd_snapshot *s = (const void *)(arena + offset);

    return (struct lbfwd_view){
        .arena = arena,
        .snapshot = s,
        .vips = (const void *)(arena + s->vips_offset),
        .services = (const void *)(arena + s->services_offset),
        .backends = (const void *)(arena + s->backends_offset),
        .paths = (const void *)arena,
        .peers = (const void *)(arena + s->peers_offset),
        .peer_paths = (const void *)(arena + s->peer_paths_offset),
        .peer_table = (const void *)(arena + s->peer_table_offset),
        .seed = siphash_seed(s->hash_key),
    };
}

static inline uint64_t generation_of(uint64_t published)
{
    return published >> 32;
}

static inline uint64_t offset_of(uint64_t published)
{
    return (published & 0xffffffff) * ARENA_UNIT;
}

#endif
