/* Population of a Maglev table: Eisenbud et al., NSDI 2016, section 3.4, with weights as turns.
 *
 * The table is exactly the paper's; only the search for a backend's next free slot differs:
 *
 * - Positions are fractions of the table in units of 2^-64, so that a step wraps by itself. The
 *   leading bits of a fraction name a cell; no two slots share one, and "taken" is a byte a cell.
 * - A slot once taken stays so. Hence backends may be moved to their next free slots ahead of their
 *   turns, many together and several probes at a time, without a branch on what was found. Whoever
 *   finds his slot taken by then moves on when it is his turn.
 * - More than half of all probes would look for the last slots. There the place of each free slot in
 *   the backend's permutation is computed instead, (slot - at) / skip modulo size; the least is next.
 *
 * What was tried and what it gave is in docs/benchmarks.md. */
#ifndef LBFWD_MAGLEV_H
#define LBFWD_MAGLEV_H

#include <errno.h>
#include <stdlib.h>

#include "_bytes.h"
#include "_contract.h"

#define MAGLEV_MAX_SIZE (1u << 24)
/* Fractions are exact enough up to here: fewer than `size` steps, each too short by less than one
 * unit, stay within the 2^63 / (size * cells) units that slots begin above the border of a cell. */
#define MAGLEV_MAX_FRACTIONS (1u << 21)

typedef unsigned __int128 lbfwd_u128;

struct lbfwd_walk {
    uint64_t at, step;    /* fractions; for the last slots and in very large tables: slots */
};

struct lbfwd_schedule {   /* a backend's turns: rounds r with r * weight / largest at a new integer */
    uint64_t due;         /* round of the next one, number n: the least r with r * weight >= n * largest */
    uint32_t weight;
    uint32_t slack;       /* due * weight - n * largest; less than weight */
    uint32_t whole, rest; /* of largest / weight: rounds from turn to turn */
};

struct lbfwd_turn {
    uint32_t round;       /* since the first that is lined up */
    uint16_t backend;
};

struct lbfwd_population {
    uint16_t *table;
    uint32_t size, backends;
    const uint32_t *skips;
    uint32_t free;        /* slots */
    struct lbfwd_walk *walks;

    uint32_t largest;     /* weight */
    uint64_t begin;       /* the first round that is not lined up yet */
    uint32_t rounds;      /* that are lined up at a time */
    struct lbfwd_schedule *schedules;
    struct lbfwd_turn *turns;
    uint32_t *starts;     /* of each round among the turns in line */
    uint16_t *line, *pending;
    uint32_t always;      /* weights are equal: so many turns in every round; 0: they are not */

    uint32_t shift;       /* fraction >> shift: its cell */
    uint8_t *taken;       /* by cell */

    uint32_t last;        /* with so few free slots, their places are computed */
    uint64_t *scales;     /* 1 / skip modulo size, as a fraction; 0: not computed yet */
    uint32_t *slots, listed; /* the free ones; each one's entry in the table is its index here */
};

static inline uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* Bring the turns into the order of their rounds; within a round they are by backend already. */
static inline void line_up_by_round(struct lbfwd_population *p, uint32_t count)
{
    memset(p->starts, 0, (p->rounds + 1) * sizeof *p->starts);
    for (uint32_t i = 0; i < count; i++)
        p->starts[p->turns[i].round + 1]++;
    for (uint32_t r = 0; r < p->rounds; r++)
        p->starts[r + 1] += p->starts[r];
    for (uint32_t i = 0; i < count; i++)
        p->line[p->starts[p->turns[i].round]++] = p->turns[i].backend;
}

/* Line up the turns of the next rounds. Returns how many there are. */
static inline uint32_t line_up(struct lbfwd_population *p)
{
    uint64_t end = p->begin + p->rounds;
    uint32_t count = 0;

    if (p->always && p->begin > 1)
        return p->always;
    for (uint32_t i = 0; i < p->backends; i++) {
        struct lbfwd_schedule *s = &p->schedules[i];
        while (s->due < end) {
            uint32_t late = s->slack < s->rest;
            p->turns[count] = (struct lbfwd_turn){(uint32_t)(s->due - p->begin), (uint16_t)i};
            p->line[count++] = (uint16_t)i;
            s->due += s->whole + late;
            s->slack += (late ? s->weight : 0) - s->rest;
        }
    }
    if (p->rounds > 1)
        line_up_by_round(p, count);
    p->begin = end;
    return count;
}

/* Make probes of each backend's permutation, from where it is, and move it to the first free slot or
 * behind them. Returns how many are pending: found none. Line and pending may be the same array. */
static inline __attribute__((always_inline)) uint32_t
seek(const struct lbfwd_population *p, const uint16_t *line, uint32_t count, const uint32_t probes)
{
    struct lbfwd_walk *walks = p->walks;
    const uint8_t *taken = p->taken;
    uint16_t *pending = p->pending;
    uint32_t shift = p->shift, next = 0;

    for (uint32_t i = 0; i < count; i++) {
        struct lbfwd_walk *walk = &walks[line[i]];
        uint64_t at = walk->at, step = walk->step;
        uint32_t busy = 0; /* a bit a probe, the first highest */
#pragma GCC unroll 8
        for (uint32_t probe = 0; probe < probes; probe++, at += step)
            busy = busy * 2 + taken[at >> shift];
        uint32_t first = (uint32_t)__builtin_clz(~(busy << (32 - probes)));
        walk->at += first * step;
        pending[next] = line[i];
        next += first == probes;
    }
    return next;
}

/* Several probes at a time waste some where free slots are many, and save passes where they are few. */
static inline void seek_all(const struct lbfwd_population *p, const uint16_t *line, uint32_t count)
{
    uint32_t pending;

    if (p->free > p->size / 2)
        pending = seek(p, line, count, 1);
    else if (p->free > p->size / 4)
        pending = seek(p, line, count, 4);
    else
        pending = seek(p, line, count, 8);
    while (pending)
        pending = seek(p, p->pending, pending, 8);
}

/* The turns in line, in their order. */
static inline void claim_all(struct lbfwd_population *p, const uint16_t *line, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        uint16_t backend = line[i];
        struct lbfwd_walk *walk = &p->walks[backend];
        uint64_t at = walk->at;
        while (UNLIKELY(p->taken[at >> p->shift]))
            at += walk->step;
        p->taken[at >> p->shift] = 1;
        p->table[((lbfwd_u128)at * p->size) >> 64] = backend;
        walk->at = at + walk->step;
    }
}

/* The same in a table that is too large for fractions. */
static inline void claim_slot_by_slot(struct lbfwd_population *p, const uint16_t *line,
                                      uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct lbfwd_walk *walk = &p->walks[line[i]];
        while (p->table[walk->at] != LBFWD_NO_MEMBER)
            walk->at = (walk->at + walk->step) % p->size;
        p->table[walk->at] = line[i];
    }
}

/* 1 / n modulo a prime, by Euclid's algorithm: of a row (r, f), r = f * n modulo prime. */
static inline uint32_t inverse(uint32_t n, uint32_t prime)
{
    uint32_t before = prime, r = n;
    int64_t factor_before = 0, factor = 1;

    while (r > 1) {
        uint32_t quotient = before / r, remainder = before % r;
        int64_t next = factor_before - quotient * factor;
        before = r;
        r = remainder;
        factor_before = factor;
        factor = next;
    }
    return (uint32_t)(factor < 0 ? factor + prime : factor);
}

static inline int any_free(const uint16_t *table, uint32_t from, uint32_t end)
{
    uint16_t any = 0;

    for (uint32_t slot = from; slot < end; slot++) /* no way out: compilers make vectors of it */
        any |= table[slot] == LBFWD_NO_MEMBER;
    return any;
}

/* Go over to computed places: list the free slots, and keep positions as slots. */
static inline void list_free_slots(struct lbfwd_population *p)
{
    for (uint32_t from = 0, end; from < p->size; from = end) {
        end = least(from + 64, p->size);
        if (!any_free(p->table, from, end))
            continue;
        for (uint32_t slot = from; slot < end; slot++) {
            if (p->table[slot] != LBFWD_NO_MEMBER)
                continue;
            p->table[slot] = (uint16_t)p->listed;
            p->slots[p->listed++] = slot;
        }
    }
    for (uint32_t i = 0; p->taken && i < p->backends; i++)
        p->walks[i].at = (uint64_t)(((lbfwd_u128)p->walks[i].at * p->size) >> 64);
}

/* How far the backend's next free slot is along its permutation. A place n is the fraction
 * (n + 1/2) / size here, less rounding: below size units of some 2^63 / size. */
static inline uint32_t least_place(const struct lbfwd_population *p, uint64_t at, uint64_t scale)
{
    uint64_t half = UINT64_MAX / p->size / 2, origin = half - at * scale;
    uint64_t even = UINT64_MAX, odd = UINT64_MAX; /* two chains of comparisons at a time */
    uint32_t i = 0;

    for (; i + 1 < p->listed; i += 2) {
        uint64_t a = p->slots[i] * scale + origin, b = p->slots[i + 1] * scale + origin;
        even = a < even ? a : even;
        odd = b < odd ? b : odd;
    }
    if (i < p->listed && p->slots[i] * scale + origin < even)
        even = p->slots[i] * scale + origin;
    return (uint32_t)(((lbfwd_u128)(even < odd ? even : odd) * p->size) >> 64);
}

static inline void claim_last(struct lbfwd_population *p, uint16_t backend)
{
    uint32_t skip = p->skips[backend], moved = p->slots[p->listed - 1], index;
    uint64_t *scale = &p->scales[backend], *at = &p->walks[backend].at;

    if (!*scale)
        *scale = (uint64_t)(((lbfwd_u128)inverse(skip, p->size) << 64) / p->size) + 1;
    *at = (*at + (uint64_t)least_place(p, *at, *scale) * skip) % p->size;
    index = p->table[*at];
    p->slots[index] = moved;
    p->table[moved] = (uint16_t)index;
    p->listed--;
    p->table[*at] = backend;
}

/* Some of the turns in line: so few that seldom two find the same slot. Returns how many. */
static inline uint32_t claim_some(struct lbfwd_population *p, const uint16_t *line, uint32_t count)
{
    if (p->free <= p->last) {
        if (!p->listed)
            list_free_slots(p);
        claim_last(p, *line);
        return 1;
    }
    count = least(count, p->free - p->last);
    if (!p->taken) {
        claim_slot_by_slot(p, line, count);
        return count;
    }
    count = least(count, p->free / 4 + 1);
    seek_all(p, line, count);
    claim_all(p, line, count);
    return count;
}

static inline int is_prime(uint32_t n)
{
    if (n < 4)
        return n > 1;
    for (uint32_t d = 3; d * d <= n; d += 2)
        if (n % d == 0)
            return 0;
    return n % 2;
}

/* Each backend's first turn. Rounds are lined up as many at a time as give each backend a turn on
 * average: then looking through all backends costs no more than the turns do. */
static inline void schedule(struct lbfwd_population *p, const uint32_t *weights)
{
    uint64_t sum = 0, taking_part = 0;

    for (uint32_t i = 0; i < p->backends; i++) {
        sum += weights[i];
        taking_part += weights[i] > 0;
        if (weights[i] > p->largest)
            p->largest = weights[i];
    }
    p->begin = 1;
    p->rounds = sum ? (uint32_t)(taking_part * p->largest / sum) : 0;
    p->always = sum == taking_part * p->largest ? (uint32_t)taking_part : 0;
    for (uint32_t i = 0; i < p->backends; i++) {
        uint32_t w = weights[i], whole = w ? p->largest / w : 0, rest = w ? p->largest % w : 0;
        uint64_t due = w ? (uint64_t)whole + (rest > 0) : UINT64_MAX; /* never */
        p->schedules[i] = (struct lbfwd_schedule){due, w, rest ? w - rest : 0, whole, rest};
    }
}

/* Put every backend at its offset. */
static inline void take_positions(struct lbfwd_population *p, const uint32_t *offsets)
{
    lbfwd_u128 slot = ~(lbfwd_u128)0 / p->size; /* in units of 2^-128 */
    lbfwd_u128 margin = slot >> (64 - p->shift) >> 1;

    for (uint32_t i = 0; i < p->backends; i++) {
        struct lbfwd_walk fractions = {(uint64_t)((offsets[i] * slot + margin) >> 64),
                                           (uint64_t)((p->skips[i] * slot) >> 64)};
        struct lbfwd_walk whole = {offsets[i], p->skips[i]};
        p->walks[i] = p->taken ? fractions : whole;
    }
}

static inline void release(struct lbfwd_population *p)
{
    free(p->walks);
    free(p->schedules);
    free(p->turns);
    free(p->starts);
    free(p->line);
    free(p->pending);
    free(p->taken);
    free(p->scales);
    free(p->slots);
}

/* A line is at most two turns a backend long. */
static inline int reserve(struct lbfwd_population *p)
{
    size_t n = (size_t)p->backends + 1;
    uint32_t bits = 1;

    while (1u << bits < p->size)
        bits++;
    p->shift = 64 - bits;
    for (p->last = 1; 2 * p->last * p->last <= p->size;)
        p->last *= 2;
    if (p->size <= MAGLEV_MAX_FRACTIONS && !(p->taken = calloc(1u << bits, 1)))
        return -ENOMEM;
    p->walks = malloc(n * sizeof *p->walks);
    p->schedules = malloc(n * sizeof *p->schedules);
    p->turns = malloc(2 * n * sizeof *p->turns);
    p->starts = malloc((n + 1) * sizeof *p->starts);
    p->line = malloc(2 * n * sizeof *p->line);
    p->pending = malloc(2 * n * sizeof *p->pending);
    p->scales = calloc(n, sizeof *p->scales);
    p->slots = malloc(p->last * sizeof *p->slots);
    return p->walks && p->schedules && p->turns && p->starts && p->line && p->pending &&
                   p->scales && p->slots
               ? 0
               : -ENOMEM;
}

static inline void populate(struct lbfwd_population *p)
{
    while (p->free) {
        uint32_t count = line_up(p);
        for (uint32_t done = 0; done < count && p->free;) {
            uint32_t claimed = claim_some(p, p->line + done, count - done);
            done += claimed;
            p->free -= claimed;
        }
    }
}

/* Fill a table of prime size with indices of backends, or with LBFWD_NO_MEMBER if all weights are 0.
 * Offsets are below size, skips from 1 to size - 1. Returns 0, -EINVAL or -ENOMEM. */
static inline int maglev_populate(uint16_t *table, uint32_t size, const uint32_t *offsets,
                                  const uint32_t *skips, const uint32_t *weights, uint32_t backends)
{
    struct lbfwd_population p = {
        .table = table, .size = size, .free = size, .skips = skips, .backends = backends};
    int result;

    if (size > MAGLEV_MAX_SIZE || !is_prime(size) || backends > LBFWD_MAX_MEMBERS)
        return -EINVAL;
    for (uint32_t i = 0; i < backends; i++)
        if (offsets[i] >= size || !skips[i] || skips[i] >= size)
            return -EINVAL;
    memset(table, 0xff, size * sizeof *table); /* LBFWD_NO_MEMBER everywhere */
    result = reserve(&p);
    if (!result) {
        schedule(&p, weights);
        take_positions(&p, offsets);
        if (p.largest)
            populate(&p);
    }
    release(&p);
    return result;
}

#endif
