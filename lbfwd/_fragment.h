/* Fragments follow their datagram's first: it has the ports. RFC 791 section 3.2, RFC 8200
 * section 4.5. Bounded in number and time; private to a worker, for all fragments of a datagram
 * reach one worker (the fanout program sees to it). */
#ifndef LBFWD_FRAGMENT_H
#define LBFWD_FRAGMENT_H

#include "_lookup.h"

#define FRAGMENT_SETS 1024
#define FRAGMENT_WAYS 4
#define FRAGMENT_LIFE_MS 5000    /* how long the others may follow the first */
#define HELD_MOST 256            /* fragments that wait for their first */
#define HELD_LIFE_MS 500
#define HELD_BYTES 9232          /* a jumbo frame */

struct lbfwd_fragment_route {    /* where the first fragment went */
    uint64_t key;                /* 0: free */
    uint64_t affinity_hash;
    uint64_t since_ms;
    uint32_t backend;
    uint32_t incarnation;
    uint32_t service;            /* counter */
};

struct lbfwd_held {
    uint64_t since_ms;
    uint32_t length;
    uint8_t rx;                  /* ring it came from */
    uint8_t from_peer;
    uint8_t bytes[HELD_BYTES];
};

struct lbfwd_fragments {
    struct lbfwd_fragment_route routes[FRAGMENT_SETS][FRAGMENT_WAYS];
    struct lbfwd_held held[HELD_MOST]; /* a queue: the oldest is at `oldest` */
    uint64_t held_keys[HELD_MOST]; /* 0: released. Dense: every first fragment looks at all */
    uint32_t oldest;
    uint32_t count;
};

/* source | destination | identification, under the fleet's secret; of IPv4 the protocol too. In
 * IPv6 it is no part (RFC 8200 section 4.5), and only the first fragment knows it. */
static inline uint64_t fragment_key(const struct lbfwd_packet *packet,
                                    const struct lbfwd_siphash *seed)
{
    uint8_t key[40];
    uint32_t addresses = packet->family == 4 ? 8 : 32;
    uint64_t hash;

    memcpy(key, packet->ip + (packet->family == 4 ? 12 : 8), addresses);
    memcpy(key + addresses, &packet->fragment_id, 4);
    key[addresses + 4] = packet->family == 4 ? packet->protocol : 0;
    hash = siphash(key, addresses + 5, seed);
    return hash ? hash : 1;
}

static inline struct lbfwd_fragment_route *fragment_find(struct lbfwd_fragments *f, uint64_t key,
                                                         uint64_t now_ms)
{
    struct lbfwd_fragment_route *set = f->routes[key % FRAGMENT_SETS];

    for (uint32_t i = 0; i < FRAGMENT_WAYS; i++)
        if (set[i].key == key && now_ms - set[i].since_ms <= FRAGMENT_LIFE_MS)
            return &set[i];
    return NULL;
}

/* Where to remember a datagram: its own place, a free one, or the oldest. */
static inline struct lbfwd_fragment_route *fragment_place(struct lbfwd_fragments *f, uint64_t key)
{
    struct lbfwd_fragment_route *set = f->routes[key % FRAGMENT_SETS], *place = &set[0];

    for (uint32_t i = 0; i < FRAGMENT_WAYS; i++) {
        if (set[i].key == key || !set[i].key)
            return &set[i];
        if (set[i].since_ms < place->since_ms)
            place = &set[i];
    }
    return place;
}

/* Keeps a copy until the first fragment comes. When too many wait the oldest makes room: a flood of
 * fragments that nobody leads shortens the wait of the others, and does not end it. Returns how
 * many had to go. The frame is no larger than HELD_BYTES. */
static inline int fragment_hold(struct lbfwd_fragments *f, uint64_t key,
                                const struct lbfwd_frame *frame, uint64_t now_ms)
{
    struct lbfwd_held *held;
    int displaced = 0;

    if (f->count == HELD_MOST) {
        displaced = f->held_keys[f->oldest] != 0;
        f->oldest = (f->oldest + 1) % HELD_MOST;
        f->count--;
    }
    f->held_keys[(f->oldest + f->count) % HELD_MOST] = key;
    held = &f->held[(f->oldest + f->count) % HELD_MOST];
    held->since_ms = now_ms;
    held->length = frame->length;
    held->rx = frame->rx;
    held->from_peer = frame->from_peer;
    memcpy(held->bytes, frame->data, frame->length);
    f->count++;
    return displaced;
}

static inline struct lbfwd_frame held_frame(const struct lbfwd_held *held)
{
    return (struct lbfwd_frame){.data = held->bytes, .length = held->length,
                                .wire_length = held->length, .rx = held->rx,
                                .from_peer = held->from_peer};
}

/* Lets go of fragments whose time is over; returns how many of them nobody came for. */
static inline int fragment_expire(struct lbfwd_fragments *f, uint64_t now_ms)
{
    int waited = 0;

    while (f->count) {
        int waits = f->held_keys[f->oldest] != 0;
        if (waits && now_ms - f->held[f->oldest].since_ms <= HELD_LIFE_MS)
            break;
        waited += waits;
        f->oldest = (f->oldest + 1) % HELD_MOST;
        f->count--;
    }
    return waited;
}

#endif
