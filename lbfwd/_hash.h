/* The flow hash: SipHash-1-3 (Aumasson and Bernstein 2012; one compression round, three of
 * finalization) under the fleet's secret, and the bucket it names. docs/architecture.md. */
#ifndef LBFWD_HASH_H
#define LBFWD_HASH_H

#include "_bytes.h"

#define LBFWD_KEY4 13 /* source, destination, ports, protocol */
#define LBFWD_KEY6 37
#define LBFWD_KEY_END 5    /* bytes of it behind the addresses */
#define LBFWD_KEY4_WORDS 2 /* as SipHash reads them, the last one padded */
#define LBFWD_KEY6_WORDS 5

static inline uint32_t key_words(uint8_t family)
{
    return family == 4 ? LBFWD_KEY4_WORDS : LBFWD_KEY6_WORDS;
}

struct lbfwd_siphash { uint64_t v0, v1, v2, v3; };

static inline uint64_t rotate_left(uint64_t x, unsigned bits)
{
    return x << bits | x >> (64 - bits);
}

/* One round, for a state of numbers and for one of vectors (_lanes.h). */
#define SIPHASH_ROUND(s, rotate) \
    do { \
        (s)->v0 += (s)->v1; (s)->v1 = rotate((s)->v1, 13); (s)->v1 ^= (s)->v0; \
        (s)->v2 += (s)->v3; (s)->v3 = rotate((s)->v3, 16); (s)->v3 ^= (s)->v2; \
        (s)->v0 = rotate((s)->v0, 32); \
        (s)->v0 += (s)->v3; (s)->v3 = rotate((s)->v3, 21); (s)->v3 ^= (s)->v0; \
        (s)->v2 += (s)->v1; (s)->v1 = rotate((s)->v1, 17); (s)->v1 ^= (s)->v2; \
        (s)->v2 = rotate((s)->v2, 32); \
    } while (0)

static inline void siphash_word(struct lbfwd_siphash *s, uint64_t word)
{
    s->v3 ^= word;
    SIPHASH_ROUND(s, rotate_left);
    s->v0 ^= word;
}

static inline uint64_t siphash_end(struct lbfwd_siphash *s)
{
    s->v2 ^= 0xff;
    SIPHASH_ROUND(s, rotate_left);
    SIPHASH_ROUND(s, rotate_left);
    SIPHASH_ROUND(s, rotate_left);
    return s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}

/* The state that the secret begins with: two little-endian words. */
static inline struct lbfwd_siphash siphash_seed(const uint64_t secret[2])
{
    return (struct lbfwd_siphash){
        secret[0] ^ 0x736f6d6570736575ULL, secret[1] ^ 0x646f72616e646f6dULL,
        secret[0] ^ 0x6c7967656e657261ULL, secret[1] ^ 0x7465646279746573ULL,
    };
}

/* The last word that SipHash reads of a key whose last bytes are ports and protocol. */
static inline uint64_t siphash_last(uint32_t ports, uint8_t protocol, uint32_t length)
{
    return ports | (uint64_t)protocol << 32 | (uint64_t)length << 56;
}

/* SipHash-1-3 of a flow key as a packet holds it: whole words, the last as above. Words are read
 * little-endian, as SipHash defines; lbfwd runs on little-endian machines only. */
static inline uint64_t flow_hash(const uint8_t *key, uint32_t words, const struct lbfwd_siphash *seed)
{
    struct lbfwd_siphash s = *seed;

    for (uint32_t i = 0; i < words; i++)
        siphash_word(&s, load_u64(key + 8 * i));
    return siphash_end(&s);
}

/* The same of any bytes. */
static inline uint64_t siphash(const uint8_t *bytes, uint32_t length, const struct lbfwd_siphash *seed)
{
    struct lbfwd_siphash s = *seed;
    uint32_t whole = length & ~7u;
    uint64_t tail = 0;

    for (uint32_t i = 0; i < whole; i += 8)
        siphash_word(&s, load_u64(bytes + i));
    memcpy(&tail, bytes + whole, length - whole);
    siphash_word(&s, tail | (uint64_t)length << 56);
    return siphash_end(&s);
}

static inline uint32_t flow_bucket(uint64_t hash, uint32_t table_size)
{
    return (uint32_t)(((hash >> 32) * table_size) >> 32);
}

#endif
