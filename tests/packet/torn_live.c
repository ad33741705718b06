/* One thread goes on writing how marked packets went, another goes on reading it as the supervisor
 * does: what is not refused must be of one packet. Exits 1 when any of it was torn. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>

#include "_live.h"

#define LEAST 5000000u /* reads of each kind: taken, and refused */
#define MOST_TRIES 2000000000u

static struct lbfwd_slot slot;
static struct lbfwd_worker worker = {.slot = &slot};
static int enough;

static void *write_in_turn(void *unused)
{
    struct lbfwd_frame frame = {0};
    struct lbfwd_job job = {.frame = &frame, .backend = LBFWD_MAX_BACKENDS};

    (void)unused;
    for (uint32_t n = 1; !__atomic_load_n(&enough, __ATOMIC_RELAXED); n++) {
        uint64_t mark[3] = {LBFWD_MARK_MAGIC, n, n};
        worker.now_ms = job.counter = n;
        live_write(&worker, &job, (const uint8_t *)mark, 0);
    }
    return NULL;
}

static int is_whole(const struct lbfwd_live *live)
{
    return live->token[0] == live->at_ms && live->token[1] == live->at_ms &&
           live->service == live->at_ms;
}

int main(void)
{
    uint32_t found = 0, torn = 0, refused = 0;
    pthread_t writer;

    if (pthread_create(&writer, NULL, write_in_turn, NULL))
        return 2;
    for (uint32_t n = 0; n < MOST_TRIES && (found < LEAST || refused < LEAST); n++) {
        struct lbfwd_live live;
        int error = live_read(&slot.live, &live);
        found += !error;
        torn += !error && !is_whole(&live);
        refused += error == -EAGAIN;
    }
    __atomic_store_n(&enough, 1, __ATOMIC_RELAXED);
    pthread_join(writer, NULL);
    printf("%u read, %u torn, %u refused\n", found, torn, refused);
    return torn || found < LEAST || refused < LEAST;
}
