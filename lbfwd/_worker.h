/* A worker: what it borrows, what it maps, and how it takes up a generation. */
#ifndef LBFWD_WORKER_H
#define LBFWD_WORKER_H

#include <poll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#include "_rx.h"
#include "_state.h"
#include "_tx.h"

struct lbfwd_worker {
    struct lbfwd_control *control;
    struct lbfwd_slot *slot;
    struct lbfwd_counters *counters;
    const uint8_t *arena;
    uint64_t control_bytes;
    uint64_t arena_bytes;      /* mapped */
    uint64_t published;        /* the word that `view` stands for; 0: none */
    struct lbfwd_view view;
    struct lbfwd_rx rx[LBFWD_MAX_RX];
    struct lbfwd_tx tx[LBFWD_MAX_TX];
    uint32_t pending;          /* frames in TX rings that the kernel has not accepted */
    int arena_fd;
};

static inline void *map_shared(int fd, uint64_t bytes, int protection)
{
    void *map = mmap(NULL, bytes, protection, MAP_SHARED, fd, 0);
    return map == MAP_FAILED ? NULL : map;
}

/* The file must be at least as large as it says: a shorter one would end a reader by SIGBUS. */
static inline int file_holds(int fd, uint64_t bytes)
{
    struct stat status;
    return !fstat(fd, &status) && (uint64_t)status.st_size >= bytes;
}

static inline int map_control(struct lbfwd_worker *w, int fd)
{
    if (!file_holds(fd, sizeof *w->control))
        return -EBADMSG;
    w->control = map_shared(fd, sizeof *w->control, PROT_READ | PROT_WRITE);
    if (!w->control)
        return -errno;
    w->control_bytes = sizeof *w->control;
    if (w->control->magic != CONTROL_MAGIC || w->control->abi != LBFWD_ABI ||
        w->control->bytes != sizeof *w->control)
        return -EBADMSG;
    return 0;
}

/* The arena only grows: a larger one is mapped anew. */
static inline int map_arena(struct lbfwd_worker *w)
{
    uint64_t bytes = READ_SHARED(w->control->arena_bytes);
    const uint8_t *arena;

    if (bytes == w->arena_bytes)
        return 0;
    if (!file_holds(w->arena_fd, bytes))
        return -EBADMSG;
    arena = map_shared(w->arena_fd, bytes, PROT_READ);
    if (!arena)
        return -errno;
    if (w->arena)
        munmap((void *)(uintptr_t)w->arena, w->arena_bytes);
    w->arena = arena;
    w->arena_bytes = bytes;
    if (w->published) /* the generation in use has moved with the mapping */
        w->view = view_of(arena, offset_of(w->published));
    return 0;
}

/* Between bursts: use what is published last, and say so. A state that does not check is not
 * used and not acknowledged: the supervisor sees that, and the old one stays whole for as long as
 * the worker refers to it. Returns whether the worker uses what is published. */
static inline int take_up(struct lbfwd_worker *w)
{
    uint64_t published = __atomic_load_n(&w->control->published, __ATOMIC_SEQ_CST);

    if (LIKELY(published == w->published))
        return 1;
    if (map_arena(w) || snapshot_check(w->arena, w->arena_bytes, offset_of(published)))
        return 0;
    w->view = view_of(w->arena, offset_of(published));
    w->published = published;
    WRITE_SHARED(w->slot->acknowledged, generation_of(published));
    return 1;
}

/* Between these two the worker may refer to a generation; outside, memory that only it could
 * still refer to may be reused. Each half is ordered against the supervisor's publish-then-look. */
static inline void begin_references(struct lbfwd_worker *w)
{
    __atomic_store_n(&w->slot->quiescent, 0, __ATOMIC_SEQ_CST);
    if (UNLIKELY(!take_up(w)))
        w->published = 0; /* the old one's memory may have been reused since end_references */
}

static inline void end_references(struct lbfwd_worker *w)
{
    __atomic_store_n(&w->slot->quiescent, 1, __ATOMIC_SEQ_CST);
}

static inline int flush_all(struct lbfwd_worker *w)
{
    w->pending = 0;
    for (uint32_t i = 0; i < LBFWD_MAX_TX; i++) {
        tx_flush(&w->tx[i], w->counters, w->slot);
        w->pending += w->tx[i].pending;
    }
    return w->pending > 0;
}

/* Rings whose head could not be found yet (their link was down) are tried again now and then. */
static inline void synchronize_tx(struct lbfwd_worker *w)
{
    for (uint32_t i = 0; i < LBFWD_MAX_TX; i++)
        if (w->tx[i].map && !w->tx[i].synchronized)
            tx_synchronize(&w->tx[i]);
}

#endif
