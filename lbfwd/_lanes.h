/* The flow hash of four packets at a time, one in each lane of AVX2's vectors: a burst has many, and
 * SipHash is but additions, rotations and exclusive ors. Machines without AVX2 hash one at a time. */
#ifndef LBFWD_LANES_H
#define LBFWD_LANES_H

#include "_hash.h"

#define LBFWD_LANES 4

#ifdef __x86_64__

#define AVX2 __attribute__((target("avx2")))

typedef uint64_t lbfwd_lanes __attribute__((vector_size(8 * LBFWD_LANES)));
typedef uint32_t lbfwd_halves __attribute__((vector_size(8 * LBFWD_LANES)));

struct lbfwd_siphash_lanes { lbfwd_lanes v0, v1, v2, v3; };

/* By 32 it is one instruction: the halves of each lane change places. */
#define ROTATE_LANES(x, bits) \
    ((bits) == 32 ? (lbfwd_lanes)__builtin_shufflevector((lbfwd_halves)(x), (lbfwd_halves)(x), 1, 0, \
                                                         3, 2, 5, 4, 7, 6) \
                  : (x) << (bits) | (x) >> (64 - (bits)))

static inline int have_lanes(void)
{
    return __builtin_cpu_supports("avx2");
}

/* flow_hash of four keys of so many words. */
AVX2 STEP void flow_hash_lanes(const uint8_t *const keys[LBFWD_LANES], uint32_t words,
                               const struct lbfwd_siphash *seed, uint64_t hashes[LBFWD_LANES])
{
    const lbfwd_lanes zero = {0};
    struct lbfwd_siphash_lanes lanes = {zero + seed->v0, zero + seed->v1, zero + seed->v2,
                                        zero + seed->v3}, *s = &lanes;
    lbfwd_lanes digests;

    for (uint32_t i = 0; i < 8 * words; i += 8) {
        lbfwd_lanes word = {load_u64(keys[0] + i), load_u64(keys[1] + i), load_u64(keys[2] + i),
                            load_u64(keys[3] + i)};
        s->v3 ^= word;
        SIPHASH_ROUND(s, ROTATE_LANES);
        s->v0 ^= word;
    }
    s->v2 ^= 0xff;
    SIPHASH_ROUND(s, ROTATE_LANES);
    SIPHASH_ROUND(s, ROTATE_LANES);
    SIPHASH_ROUND(s, ROTATE_LANES);
    digests = s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
    memcpy(hashes, &digests, sizeof digests);
}

#else

#define AVX2

static inline int have_lanes(void)
{
    return 0;
}

static inline void flow_hash_lanes(const uint8_t *const keys[LBFWD_LANES], uint32_t words,
                                   const struct lbfwd_siphash *seed, uint64_t hashes[LBFWD_LANES])
{
    for (uint32_t lane = 0; lane < LBFWD_LANES; lane++)
        hashes[lane] = flow_hash(keys[lane], words, seed);
}

#endif

#endif
