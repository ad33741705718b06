/* One thread goes on giving a flow table entry to flows in turn, another goes on reading it as other
 * workers do: whatever it is told of a flow must be that flow's. Exits 1 at the first torn read. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>

#include "_bytes.h"

/* Anything may happen between two accesses: a processor that is busy, an interrupt. */
static inline void wait_a_little(void)
{
    static _Thread_local uint32_t random = 1;

    random = random * 1664525 + 1013904223;
    for (volatile uint32_t n = random >> 27; n; n--)
        ;
}

#undef READ_SHARED
#undef WRITE_SHARED
#define READ_SHARED(place) (wait_a_little(), __atomic_load_n(&(place), __ATOMIC_ACQUIRE))
#define WRITE_SHARED(place, value) \
    (wait_a_little(), __atomic_store_n(&(place), (value), __ATOMIC_RELEASE))

#include "_flow.h"

#define FLOWS 3u
#define SERVICE 7u
#define LEAST_FOUND 1000000u /* reads that met the flow */
#define MOST_READS 2000000000u

static struct lbfwd_flow_bucket bucket;
static const uint16_t lifetimes_s[] = {0, 100, 100, 100, 100};
static int enough;

static uint64_t key_of(uint32_t flow)
{
    return flow_key(0x0123456789abcdefULL * (flow + 1), SERVICE);
}

static void *write_in_turn(void *unused)
{
    (void)unused;
    for (uint32_t n = 0; !__atomic_load_n(&enough, __ATOMIC_RELAXED); n++) {
        uint32_t flow = n % FLOWS;
        flow_write(&bucket.ways[n % 2], key_of(flow),
                   flow_value(flow + 1, 1, SERVICE, LBFWD_FLOW_TCP, 0));
    }
    return NULL;
}

int main(void)
{
    struct lbfwd_flow_context context = flow_context_at(lifetimes_s, 0);
    uint32_t found = 0, torn = 0;
    pthread_t writer;

    if (pthread_create(&writer, NULL, write_in_turn, NULL))
        return 2;
    for (uint32_t n = 0; n < MOST_READS && found < LEAST_FOUND; n++) {
        uint32_t flow = n % FLOWS;
        uint64_t value = read_foreign(&bucket, key_of(flow), SERVICE, &context);
        found += value != 0;
        torn += value && flow_backend(value) != flow + 1;
    }
    __atomic_store_n(&enough, 1, __ATOMIC_RELAXED);
    pthread_join(writer, NULL);
    printf("%u found, %u torn\n", found, torn);
    return torn || found < LEAST_FOUND;
}
