/* Population of Maglev tables: ours, and the textbook's (tables.py compiles and runs it).
 *
 *   tables ROUNDS
 *
 * Prints a line for each round and case: size, backends, then milliseconds a table of the textbook
 * and of ours, CPU time of the thread. A round fills POOLS tables by each, of pools that differ, in
 * turns; both must be equal. */
#include <stdio.h>
#include <time.h>

#include "_maglev.h"

#define POOLS 8
#define MOST 1000 /* backends */

struct pool {
    uint32_t size, backends;
    uint32_t offsets[MOST], skips[MOST], weights[MOST];
};

static void fail(const char *what)
{
    fprintf(stderr, "tables: %s\n", what);
    exit(1);
}

static void *room(size_t count, size_t bytes)
{
    void *place = calloc(count, bytes);
    if (!place)
        fail("no memory");
    return place;
}

/* Function POPULATE of the paper, section 3.4, line by line. Its permutation[i][j] is computed where
 * it is needed: a table of all permutations would be backends * size entries. */
static void textbook(int32_t *entry, const struct pool *pool, uint64_t *next)
{
    uint64_t size = pool->size, n = 0;

    for (uint32_t i = 0; i < pool->backends; i++)
        next[i] = 0;
    for (uint64_t j = 0; j < size; j++)
        entry[j] = -1;
    for (;;) {
        for (uint32_t i = 0; i < pool->backends; i++) {
            uint64_t c = (pool->offsets[i] + next[i] * pool->skips[i]) % size;
            while (entry[c] >= 0) {
                next[i]++;
                c = (pool->offsets[i] + next[i] * pool->skips[i]) % size;
            }
            entry[c] = (int32_t)i;
            next[i]++;
            if (++n == size)
                return;
        }
    }
}

/* xorshift64*: Vigna 2016. Hashes of names are as good as random. */
static uint32_t draw(void)
{
    static uint64_t state = 0x9e3779b97f4a7c15;

    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (uint32_t)((state * 0x2545f4914f6cdd1d) >> 32);
}

static void make_pool(struct pool *pool, uint32_t size, uint32_t backends)
{
    pool->size = size;
    pool->backends = backends;
    for (uint32_t i = 0; i < backends; i++) {
        pool->offsets[i] = draw() % size;
        pool->skips[i] = draw() % (size - 1) + 1;
        pool->weights[i] = 1;
    }
}

static double now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static void compare(const int32_t *entry, const uint16_t *table, uint32_t size)
{
    for (uint32_t j = 0; j < size; j++)
        if (entry[j] != table[j])
            fail("the tables differ");
}

static void measure(uint32_t size, uint32_t backends)
{
    int32_t *entry = room(size, sizeof *entry);
    uint16_t *table = room(size, sizeof *table);
    uint64_t *next = room(backends, sizeof *next);
    struct pool *pool = room(1, sizeof *pool);
    double theirs = 0, ours = 0;

    for (uint32_t i = 0; i < POOLS; i++) {
        make_pool(pool, size, backends);
        theirs -= now_ms();
        textbook(entry, pool, next);
        theirs += now_ms();
        ours -= now_ms();
        if (maglev_populate(table, size, pool->offsets, pool->skips, pool->weights, backends))
            fail("population failed");
        ours += now_ms();
        compare(entry, table, size);
    }
    printf("%u\t%u\t%.6f\t%.6f\n", size, backends, theirs / POOLS, ours / POOLS);
    free(entry);
    free(table);
    free(next);
    free(pool);
}

int main(int argc, char **argv)
{
    static const uint32_t sizes[] = {65537, 655373}, backends[] = {10, 100, MOST};
    int rounds = argc == 2 ? atoi(argv[1]) : 0;

    if (rounds < 1)
        fail("usage: tables ROUNDS");
    for (int round = 0; round < rounds; round++)
        for (uint32_t s = 0; s < 2; s++)
            for (uint32_t b = 0; b < 3; b++)
                measure(sizes[s], backends[b]);
    return 0;
}
