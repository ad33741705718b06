/* The flow table: which backend each live flow has (the paper's connection table, section 4.1).
 *
 * One region a worker, in a file outside the process. Only its worker writes a region; every
 * worker reads all. A flow has two buckets of one cache line each. A flow's first packet makes an
 * unconfirmed entry, its second confirms it; unconfirmed entries give way first, and a live
 * confirmed one is never evicted. docs/architecture.md. */
#ifndef LBFWD_FLOW_H
#define LBFWD_FLOW_H

#include "_lookup.h"

/* value: backend 17 bits | incarnation 12 | service 16 | state 3 | last seen 16 (seconds). In an
 * entry the service is xor-ed with the low bits of the key: a value proves whose it is. */
#define FLOW_BACKEND_BITS 17
#define FLOW_INCARNATION_BITS 12
#define FLOW_SERVICE_BITS 16
#define FLOW_INCARNATION_SHIFT FLOW_BACKEND_BITS
#define FLOW_SERVICE_SHIFT (FLOW_INCARNATION_SHIFT + FLOW_INCARNATION_BITS)
#define FLOW_STATE_SHIFT (FLOW_SERVICE_SHIFT + FLOW_SERVICE_BITS)
#define FLOW_SEEN_SHIFT 48
#define FLOW_AHEAD_S 8          /* an entry is never so far ahead of a reader */

_Static_assert(LBFWD_MAX_BACKENDS <= 1 << FLOW_BACKEND_BITS, "backends fit an entry");
_Static_assert(LBFWD_MAX_SERVICES <= 1 << FLOW_SERVICE_BITS, "services fit an entry");
_Static_assert(sizeof(struct lbfwd_flow_bucket) == 64, "a bucket is one cache line");

struct lbfwd_flows {
    struct lbfwd_flow_bucket *own;       /* this worker's region */
    const struct lbfwd_flow_bucket *all; /* every region, one after the other */
    uint32_t buckets;                    /* of one region */
    uint32_t workers;
    uint32_t slot;                       /* which of them is ours */
    uint32_t sweep;                      /* bucket that is looked at for expired entries next */
};

/* What a look-up needs to know besides the key. */
struct lbfwd_flow_context {
    uint16_t now_s;
    uint32_t fresh;              /* see flow_is_fresh */
    int32_t limits[8];           /* by enum lbfwd_flow_state, see flow_expired */
};

_Static_assert(LBFWD_FLOW_TCP == 2 && LBFWD_FLOW_UDP == 3, "two states in one comparison");

/* Without lifetimes nothing lives. */
static inline struct lbfwd_flow_context flow_context_at(const uint16_t *lifetimes_s, uint16_t now_s)
{
    struct lbfwd_flow_context context = {.now_s = now_s, .fresh = (uint32_t)now_s << 2 | 1};

    for (uint32_t state = 0; state < 8; state++)
        context.limits[state] = lifetimes_s && state != LBFWD_FLOW_FREE
                                    ? lifetimes_s[state] + FLOW_AHEAD_S + 1 : -1;
    return context;
}

/* Confirmed, not closing, and seen in this second: most packets find their flow so. */
static inline int flow_is_fresh(uint64_t value, const struct lbfwd_flow_context *context)
{
    return value >> (FLOW_STATE_SHIFT + 1) == context->fresh;
}

static inline uint64_t flow_value(uint32_t backend, uint32_t incarnation, uint32_t service,
                                  enum lbfwd_flow_state state, uint16_t seen)
{
    return backend |
           (uint64_t)(incarnation & ((1u << FLOW_INCARNATION_BITS) - 1)) << FLOW_INCARNATION_SHIFT |
           (uint64_t)service << FLOW_SERVICE_SHIFT | (uint64_t)state << FLOW_STATE_SHIFT |
           (uint64_t)seen << FLOW_SEEN_SHIFT;
}

static inline uint32_t flow_backend(uint64_t value)
{
    return (uint32_t)value & ((1u << FLOW_BACKEND_BITS) - 1);
}

static inline uint32_t flow_incarnation(uint64_t value)
{
    return (uint32_t)(value >> FLOW_INCARNATION_SHIFT) & ((1u << FLOW_INCARNATION_BITS) - 1);
}

static inline enum lbfwd_flow_state flow_state(uint64_t value)
{
    return (enum lbfwd_flow_state)(value >> FLOW_STATE_SHIFT & 7);
}

/* Workers read the clock once a burst: another's entry may be a little younger than our "now". */
static inline uint16_t flow_age_s(uint64_t value, uint16_t now_s)
{
    uint16_t age = (uint16_t)(now_s - (uint16_t)(value >> FLOW_SEEN_SHIFT));
    return LIKELY(age < UINT16_MAX - FLOW_AHEAD_S) ? age : 0;
}

/* Two services of one VIP never share an entry: the key depends on the service. */
static inline uint64_t flow_key(uint64_t affinity_hash, uint32_t service)
{
    return affinity_hash + (service + 1) * 0x9e3779b97f4a7c15ULL;
}

/* Older than its state's lifetime, or free. What is ahead of us by FLOW_AHEAD_S seconds at most comes
 * out younger than all others: so one comparison does. */
static inline int flow_expired(uint64_t value, const struct lbfwd_flow_context *context)
{
    uint16_t seen = (uint16_t)(value >> FLOW_SEEN_SHIFT);
    uint16_t age = (uint16_t)(context->now_s + FLOW_AHEAD_S + 1 - seen);
    return age > context->limits[flow_state(value)];
}

/* Where the flow's entry is, if it has one. */
struct lbfwd_flow_home {
    uint64_t key;
    uint32_t first;              /* bucket */
};

static inline struct lbfwd_flow_home flow_home(const struct lbfwd_flows *flows, uint64_t key)
{
    return (struct lbfwd_flow_home){key, (uint32_t)(((key >> 32) * flows->buckets) >> 32)};
}

/* The other bucket; few need it. */
static inline uint32_t second_of(const struct lbfwd_flows *flows, const struct lbfwd_flow_home *home)
{
    uint32_t spread = (uint32_t)home->key * 0x9e3779b1u; /* 32 bits: the low half decides */
    return (uint32_t)(((uint64_t)spread * flows->buckets) >> 32);
}

static inline struct lbfwd_flow_entry *find_in_bucket(struct lbfwd_flow_bucket *bucket, uint64_t key,
                                                      const struct lbfwd_flow_context *context)
{
    for (uint32_t i = 0; i < LBFWD_FLOW_WAYS; i++) {
        struct lbfwd_flow_entry *entry = &bucket->ways[i];
        if (entry->key == key &&
            (LIKELY(flow_is_fresh(entry->value, context)) || !flow_expired(entry->value, context)))
            return entry;
    }
    return NULL;
}

static inline struct lbfwd_flow_entry *find_in_first(const struct lbfwd_flows *flows,
                                                     const struct lbfwd_flow_home *home,
                                                     const struct lbfwd_flow_context *context)
{
    return find_in_bucket(&flows->own[home->first], home->key, context);
}

static inline struct lbfwd_flow_entry *find_in_second(const struct lbfwd_flows *flows,
                                                      const struct lbfwd_flow_home *home,
                                                      const struct lbfwd_flow_context *context)
{
    return find_in_bucket(&flows->own[second_of(flows, home)], home->key, context);
}

static inline struct lbfwd_flow_entry *flow_find(const struct lbfwd_flows *flows,
                                                 const struct lbfwd_flow_home *home,
                                                 const struct lbfwd_flow_context *context)
{
    struct lbfwd_flow_entry *found = find_in_first(flows, home, context);
    return found ? found : find_in_second(flows, home, context);
}

/* The service field of a value, as an entry with this key holds it. */
static inline uint64_t flow_seal(uint64_t value, uint64_t key)
{
    return value ^ (key & ((1u << FLOW_SERVICE_BITS) - 1)) << FLOW_SERVICE_SHIFT;
}

static inline uint32_t flow_service(uint64_t value, uint64_t key)
{
    return (uint32_t)(flow_seal(value, key) >> FLOW_SERVICE_SHIFT) & ((1u << FLOW_SERVICE_BITS) - 1);
}

/* Another worker may write while we read: key, value, key again (see flow_write). Even when the
 * key went and came back meanwhile, another flow's value does not name our service. */
static inline uint64_t read_foreign(const struct lbfwd_flow_bucket *bucket, uint64_t key,
                                    uint32_t service, const struct lbfwd_flow_context *context)
{
    for (uint32_t i = 0; i < LBFWD_FLOW_WAYS; i++) {
        const struct lbfwd_flow_entry *entry = &bucket->ways[i];
        uint64_t value;
        if (READ_SHARED(entry->key) != key)
            continue;
        value = READ_SHARED(entry->value);
        if (READ_SHARED(entry->key) == key && !flow_expired(value, context) &&
            flow_service(value, key) == service)
            return value;
    }
    return 0;
}

static inline const struct lbfwd_flow_bucket *flow_region(const struct lbfwd_flows *flows,
                                                          uint32_t worker)
{
    return flows->all + (uint64_t)worker * flows->buckets;
}

/* The flow's value in a worker's region, or 0. */
static inline uint64_t read_flow(const struct lbfwd_flows *flows, uint32_t worker,
                                 const struct lbfwd_flow_home *home, uint32_t service,
                                 const struct lbfwd_flow_context *context)
{
    const struct lbfwd_flow_bucket *region = flow_region(flows, worker);
    uint64_t value = read_foreign(&region[home->first], home->key, service, context);

    if (value)
        return value;
    return read_foreign(&region[second_of(flows, home)], home->key, service, context);
}

/* The value that the other workers' tables have for the flow, or 0: fragments, ICMP errors and a
 * changed worker set bring packets to another worker than the flow's. The one that was seen last: a
 * flow that went from one worker to another left an older one behind. */
static inline uint64_t flow_find_elsewhere(const struct lbfwd_flows *flows,
                                           const struct lbfwd_flow_home *home, uint32_t service,
                                           const struct lbfwd_flow_context *context)
{
    uint64_t latest = 0;

    for (uint32_t worker = 0; worker < flows->workers; worker++) {
        uint64_t value;
        if (worker == flows->slot)
            continue;
        value = read_flow(flows, worker, home, service, context);
        if (value && (!latest || flow_age_s(value, context->now_s) < flow_age_s(latest, context->now_s)))
            latest = value;
    }
    return latest;
}

/* A reader that sees the new key sees the new value or none, never the old flow's. */
static inline void flow_write(struct lbfwd_flow_entry *entry, uint64_t key, uint64_t value)
{
    if (entry->key != key) {
        WRITE_SHARED(entry->value, 0);
        WRITE_SHARED(entry->key, key);
    }
    WRITE_SHARED(entry->value, flow_seal(value, key));
}

/* Frees what has expired, a few buckets at a time: an entry must not live so long unseen that its
 * 16-bit clock comes round again. */
static inline void flow_sweep(struct lbfwd_flows *flows, const struct lbfwd_flow_context *context,
                              uint32_t buckets)
{
    for (; buckets; buckets--) {
        struct lbfwd_flow_bucket *bucket = &flows->own[flows->sweep];
        for (uint32_t i = 0; i < LBFWD_FLOW_WAYS; i++)
            if (bucket->ways[i].value && flow_expired(bucket->ways[i].value, context))
                WRITE_SHARED(bucket->ways[i].value, 0);
        if (++flows->sweep == flows->buckets)
            flows->sweep = 0;
    }
}

#endif
