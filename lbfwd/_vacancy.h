/* Where a flow's two buckets have room. All entries of a new flow's buckets are looked at, and which of
 * them are free is anyone's guess: it is the dearest part of a miss, so AVX2 does it at once. */
#ifndef LBFWD_VACANCY_H
#define LBFWD_VACANCY_H

#include "_flow.h"
#include "_lanes.h"

#define WAYS_MASK ((1u << LBFWD_FLOW_WAYS) - 1)

/* The ways that are free or expired, a bit each: those of `a`, then those of `b`. */
static inline uint32_t vacancies(const struct lbfwd_flow_bucket *a,
                                 const struct lbfwd_flow_bucket *b,
                                 const struct lbfwd_flow_context *context)
{
    uint32_t ways = 0;

    for (uint32_t i = 0; i < LBFWD_FLOW_WAYS; i++) {
        ways |= (uint32_t)flow_expired(a->ways[i].value, context) << i;
        ways |= (uint32_t)flow_expired(b->ways[i].value, context) << (i + LBFWD_FLOW_WAYS);
    }
    return ways;
}

#ifdef __x86_64__

#include <immintrin.h>

_Static_assert(LBFWD_FLOW_WAYS == 4 && sizeof(struct lbfwd_flow_entry) == 16, "two vectors a bucket");

/* The upper halves of a bucket's values: 0, 0, 2, 2, 1, 1, 3, 3. */
AVX2 STEP __m256 value_halves(const struct lbfwd_flow_bucket *bucket)
{
    const float *entries = (const float *)bucket;
    return _mm256_shuffle_ps(_mm256_loadu_ps(entries), _mm256_loadu_ps(entries + 8), 0xff);
}

/* The same with one look at all of them. */
AVX2 static __attribute__((noinline)) uint32_t
vacancies_by_lanes(const struct lbfwd_flow_bucket *a, const struct lbfwd_flow_bucket *b,
                   const struct lbfwd_flow_context *context)
{
    const __m256i in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    __m256i limits = _mm256_loadu_si256((const __m256i *)context->limits);
    __m256i clock = _mm256_set1_epi32(context->now_s + FLOW_AHEAD_S + 1);
    __m256i halves = _mm256_permutevar8x32_epi32(
        _mm256_castps_si256(_mm256_shuffle_ps(value_halves(a), value_halves(b), 0x88)), in_order);
    __m256i seen = _mm256_srli_epi32(halves, FLOW_SEEN_SHIFT - 32);
    __m256i age = _mm256_and_si256(_mm256_sub_epi32(clock, seen), _mm256_set1_epi32(UINT16_MAX));
    __m256i state = _mm256_and_si256(_mm256_srli_epi32(halves, FLOW_STATE_SHIFT - 32),
                                     _mm256_set1_epi32(7));
    __m256i limit = _mm256_permutevar8x32_epi32(limits, state);

    return (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(age, limit)));
}

#else

static inline uint32_t vacancies_by_lanes(const struct lbfwd_flow_bucket *a,
                                          const struct lbfwd_flow_bucket *b,
                                          const struct lbfwd_flow_context *context)
{
    return vacancies(a, b, context);
}

#endif

/* The unconfirmed entry that waits longest, and longer than `least` (age + 1); or NULL. */
static inline struct lbfwd_flow_entry *find_unconfirmed(struct lbfwd_flow_bucket *bucket,
                                                        const struct lbfwd_flow_context *context,
                                                        uint32_t *least)
{
    struct lbfwd_flow_entry *oldest = NULL;

    for (uint32_t i = 0; i < LBFWD_FLOW_WAYS; i++) {
        uint64_t value = bucket->ways[i].value;
        uint32_t age = 1u + flow_age_s(value, context->now_s);
        if (flow_state(value) != LBFWD_FLOW_UNCONFIRMED || age <= *least)
            continue;
        *least = age;
        oldest = &bucket->ways[i];
    }
    return oldest;
}

/* A place for a new flow: the emptier bucket's, which keeps overflow rare (two-choice hashing,
 * Azar et al. 1994). NULL: neither has one. */
static inline struct lbfwd_flow_entry *flow_vacancy(const struct lbfwd_flows *flows,
                                                    const struct lbfwd_flow_home *home,
                                                    const struct lbfwd_flow_context *context,
                                                    int has_lanes)
{
    static const uint8_t count[WAYS_MASK + 1] = {0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4};
    struct lbfwd_flow_bucket *const buckets[] = {&flows->own[home->first],
                                                 &flows->own[second_of(flows, home)]};
    uint32_t both = LIKELY(has_lanes) ? vacancies_by_lanes(buckets[0], buckets[1], context)
                                      : vacancies(buckets[0], buckets[1], context);
    uint32_t which = count[both >> LBFWD_FLOW_WAYS] > count[both & WAYS_MASK];
    uint32_t ways = both >> which * LBFWD_FLOW_WAYS & WAYS_MASK;

    return LIKELY(ways) ? &buckets[which]->ways[__builtin_ctz(ways)] : NULL;
}

/* The place of an unconfirmed flow in full buckets. NULL: both are full of live confirmed flows. */
static inline struct lbfwd_flow_entry *flow_unconfirmed(const struct lbfwd_flows *flows,
                                                        const struct lbfwd_flow_home *home,
                                                        const struct lbfwd_flow_context *context)
{
    uint32_t age = 0;
    struct lbfwd_flow_entry *entry = find_unconfirmed(&flows->own[home->first], context, &age);
    struct lbfwd_flow_entry *older =
        find_unconfirmed(&flows->own[second_of(flows, home)], context, &age); /* or NULL */

    return older ? older : entry;
}

#endif
