/* Where a flow's two buckets have room for it. */
#ifndef LBFWD_VACANCY_H
#define LBFWD_VACANCY_H

#include "_flow.h"

#define WAYS_MASK ((1u << LBFWD_FLOW_WAYS) - 1)

_Static_assert(LBFWD_FLOW_WAYS == 4, "bits of a set are counted by a table");

/* The ways that are free or expired, a bit each: those of `a`, then those of `b`. Without branches:
 * which ones they are is anyone's guess. */
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
                                                    const struct lbfwd_flow_context *context)
{
    static const uint8_t count[WAYS_MASK + 1] = {0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4};
    struct lbfwd_flow_bucket *const buckets[] = {&flows->own[home->first],
                                                 &flows->own[second_of(flows, home)]};
    uint32_t both = vacancies(buckets[0], buckets[1], context);
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
