/* The flow hash: SipHash-1-3 (Aumasson and Bernstein 2012; one compression round, three of
 * finalization) under the fleet's secret, and the bucket it names. docs/architecture.md. */
#ifndef LBFWD_HASH_H
#define LBFWD_HASH_H

#include "_bytes.h"

#define LBFWD_KEY4 13 /* source, destination, ports, protocol */
#define LBFWD_KEY6 37

struct lbfwd_siphash { uint64_t v0, v1, v2, v3; };

static inline uint64_t rotate_left(uint64_t x, unsigned bits)
{
    return x << bits | x >> (64 - bits);
}

static inline void siphash_round(struct lbfwd_siphash *s)
{
    s->v0 += s->v1; s->v1 = rotate_left(s->v1, 13); s->v1 ^= s->v0; s->v0 = rotate_left(s->v0, 32);
    s->v2 += s->v3; s->v3 = rotate_left(s->v3, 16); s->v3 ^= s->v2;
    s->v0 += s->v3; s->v3 = rotate_left(s->v3, 21); s->v3 ^= s->v0;
    s->v2 += s->v1; s->v1 = rotate_left(s->v1, 17); s->v1 ^= s->v2; s->v2 = rotate_left(s->v2, 32);
}

static inline void siphash_word(struct lbfwd_siphash *s, uint64_t word)
{
    s->v3 ^= word;
    siphash_round(s);
    s->v0 ^= word;
}

/* The state that the secret begins with: two little-endian words. */
static inline struct lbfwd_siphash siphash_seed(const uint64_t secret[2])
{
    return (struct lbfwd_siphash){
        secret[0] ^ 0x736f6d6570736575ULL, secret[1] ^ 0x646f72616e646f6dULL,
        secret[0] ^ 0x6c7967656e657261ULL, secret[1] ^ 0x7465646279746573ULL,
    };
}

/* The bytes behind the last whole word; a key's are ports and protocol. In two loads that the stores
 * before them cover: a word's load would wait until they have reached the cache. */
static inline uint64_t siphash_tail(const uint8_t *at, uint32_t length)
{
    uint64_t tail = 0;

    if (LIKELY(length == 5))
        return load_u32(at) | (uint64_t)at[4] << 32;
    memcpy(&tail, at, length);
    return tail;
}

/* Words are read little-endian, as SipHash defines; lbfwd runs on little-endian machines only. */
static inline uint64_t flow_hash(const uint8_t *key, uint32_t length, const struct lbfwd_siphash *seed)
{
    struct lbfwd_siphash s = *seed;
    uint32_t whole = length & ~7u;

    for (uint32_t i = 0; i < whole; i += 8)
        siphash_word(&s, load_u64(key + i));
    siphash_word(&s, siphash_tail(key + whole, length - whole) | (uint64_t)length << 56);
    s.v2 ^= 0xff;
    siphash_round(&s);
    siphash_round(&s);
    siphash_round(&s);
    return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}

static inline uint32_t flow_bucket(uint64_t hash, uint32_t table_size)
{
    return (uint32_t)(((hash >> 32) * table_size) >> 32);
}

#endif
