/* Population of a Maglev table: Eisenbud et al., NSDI 2016, section 3.4, with weights as turns. */
#ifndef LBFWD_MAGLEV_H
#define LBFWD_MAGLEV_H

#include <errno.h>
#include <stdlib.h>

#include "_bytes.h"
#include "_contract.h"

struct lbfwd_turn {       /* one backend's place in the population */
    uint32_t at;          /* next entry of its permutation */
    uint32_t skip;
    uint32_t weight;
    uint32_t credit;      /* r * weight mod the largest weight: a wrap-around is a turn */
    uint16_t member;
};

static inline void claim_next_free(uint16_t *table, uint32_t size, struct lbfwd_turn *turn)
{
    uint32_t at = turn->at;

    while (table[at] != LBFWD_NO_MEMBER) {
        at += turn->skip;
        if (at >= size)
            at -= size;
    }
    table[at] = turn->member;
    turn->at = at;
}

/* Backends of weight 0 take no part. Returns how many take part, or -EINVAL. */
static inline int64_t line_up(struct lbfwd_turn *turns, uint32_t size, const uint32_t *offsets,
                              const uint32_t *skips, const uint32_t *weights, uint32_t backends,
                              uint32_t *largest)
{
    uint32_t count = 0;

    *largest = 0;
    for (uint32_t i = 0; i < backends; i++) {
        if (offsets[i] >= size || !skips[i] || skips[i] >= size)
            return -EINVAL;
        if (!weights[i])
            continue;
        turns[count++] = (struct lbfwd_turn){offsets[i], skips[i], weights[i], 0, (uint16_t)i};
        if (weights[i] > *largest)
            *largest = weights[i];
    }
    return count;
}

static inline int maglev_populate(uint16_t *table, uint32_t size, const uint32_t *offsets,
                                  const uint32_t *skips, const uint32_t *weights, uint32_t backends)
{
    struct lbfwd_turn *turns;
    uint32_t largest, left = size;
    int64_t count;

    if (size < 2 || backends > LBFWD_MAX_MEMBERS)
        return -EINVAL;
    turns = malloc(sizeof *turns * (backends ? backends : 1));
    if (!turns)
        return -ENOMEM;
    memset(table, 0xff, size * sizeof *table); /* LBFWD_NO_MEMBER everywhere */
    count = line_up(turns, size, offsets, skips, weights, backends, &largest);
    while (count > 0 && left) {
        for (int64_t i = 0; i < count && left; i++) {
            uint32_t credit = turns[i].credit + turns[i].weight;
            turns[i].credit = credit >= largest ? credit - largest : credit;
            if (credit < largest)
                continue;
            claim_next_free(table, size, &turns[i]);
            left--;
        }
    }
    free(turns);
    return count < 0 ? (int)count : 0;
}

#endif
