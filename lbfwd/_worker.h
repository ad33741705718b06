/* A worker: what it borrows, what it maps, and how it takes up a generation. */
#ifndef LBFWD_WORKER_H
#define LBFWD_WORKER_H

#include <poll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "_flow.h"
#include "_fragment.h"
#include "_rx.h"
#include "_state.h"
#include "_tx.h"

#define HUGE_PAGE (2ULL << 20)
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25      /* C libraries before 2.37 do not name it */
#endif

#define ANSWERS_A_SECOND 1000 /* of one worker and kind */
#define ANSWERS_AT_ONCE 100

/* Each has a rate of its own: a flood of pings must not cost senders the path MTU. */
enum lbfwd_answer_kind { ANSWER_ECHO, ANSWER_TOO_BIG, ANSWER_REJECT, ANSWER_KINDS };

struct lbfwd_worker {
    struct lbfwd_control *control;
    struct lbfwd_slot *slot;
    struct lbfwd_counters *counters;
    const uint8_t *arena;
    uint64_t control_bytes;
    uint64_t arena_bytes;      /* of the file; LBFWD_ARENA_MOST are mapped */
    uint64_t published;        /* the word that `view` stands for; 0: none */
    struct lbfwd_view view;
    struct lbfwd_rx rx[LBFWD_MAX_RX];
    struct lbfwd_tx tx[LBFWD_MAX_TX + 1]; /* the last is never a ring: "none" */
    uint32_t pending;          /* frames in TX rings that the kernel has not accepted */
    int arena_fd;
    int has_lanes;             /* this machine hashes four packets at a time */
    uint64_t now_ms;           /* of the burst: the clock is read once for all its packets */
    uint64_t swept_s;
    struct lbfwd_flows flows;
    const struct lbfwd_flows_header *flows_map;
    uint64_t flows_bytes;
    struct lbfwd_fragments *fragments;
    uint64_t answers_paid_us[ANSWER_KINDS]; /* the rate limits: times up to which answers are paid for */
    uint8_t back[LBFWD_MAX_RX]; /* TX ring of the same interface, by which answers go back */
    uint8_t segment[65536];     /* of a super-frame, finished before it is split */
    uint16_t next_identification; /* of outer IPv4 headers that may be fragmented */
};

static inline int interface_of(int fd)
{
    struct sockaddr_ll address = {0};
    socklen_t length = sizeof address;
    return fd >= 0 && !getsockname(fd, (struct sockaddr *)&address, &length) ? address.sll_ifindex : 0;
}

/* After rings came or went: the way back of each receiving interface. */
static inline void pair_rings(struct lbfwd_worker *w)
{
    for (uint32_t rx = 0; rx < LBFWD_MAX_RX; rx++) {
        w->back[rx] = LBFWD_MAX_TX;
        for (uint8_t tx = LBFWD_MAX_TX; tx--;) /* the first of several that are memory only */
            if (w->tx[tx].map && interface_of(w->tx[tx].fd) == interface_of(w->rx[rx].fd))
                w->back[rx] = tx;
    }
}

/* sharing: MAP_SHARED, or MAP_PRIVATE for a rehearsal: what it writes stays in memory of its own. */
static inline void *map_file(int fd, uint64_t bytes, int protection, int sharing)
{
    void *map = mmap(NULL, bytes, protection, sharing | MAP_NORESERVE, fd, 0);
    return map == MAP_FAILED ? NULL : map;
}

/* The same where huge pages can lie under it, and with them where the kernel has some (from 6.1 on;
 * madvise(2), MADV_COLLAPSE): a table that is read at random costs a page walk a look otherwise. */
static inline void *map_shared_huge(int fd, uint64_t bytes)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), whole = (bytes + page - 1) / page * page;
    uint64_t reserved = whole + HUGE_PAGE, before;
    uint8_t *place = mmap(NULL, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    void *map;

    if (place == MAP_FAILED)
        return NULL;
    before = -(uintptr_t)place & (HUGE_PAGE - 1);
    map = mmap(place + before, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
    if (map == MAP_FAILED) {
        munmap(place, reserved);
        return NULL;
    }
    if (before)
        munmap(place, before);
    munmap(place + before + whole, reserved - before - whole); /* at least a page */
    (void)madvise(map, bytes, MADV_COLLAPSE);
    return map;
}

/* The file must be at least as large as it says: a shorter one would end a reader by SIGBUS. */
static inline int file_holds(int fd, uint64_t bytes)
{
    struct stat status;
    return !fstat(fd, &status) && (uint64_t)status.st_size >= bytes;
}

static inline int map_control(struct lbfwd_worker *w, int fd, int sharing)
{
    if (!file_holds(fd, sizeof *w->control))
        return -EBADMSG;
    w->control = map_file(fd, sizeof *w->control, PROT_READ | PROT_WRITE, sharing);
    if (!w->control)
        return -errno;
    w->control_bytes = sizeof *w->control;
    if (w->control->magic != CONTROL_MAGIC || w->control->abi != LBFWD_ABI ||
        w->control->bytes != sizeof *w->control)
        return -EBADMSG;
    return 0;
}

/* Every worker's flow table is mapped, to read; only the own region is written. */
static inline int map_flows(struct lbfwd_worker *w, uint32_t slot, int fd, int sharing)
{
    struct lbfwd_flows_header header;
    uint64_t region;

    if (pread(fd, &header, sizeof header, 0) != sizeof header || header.magic != FLOWS_MAGIC ||
        header.abi != LBFWD_ABI || slot >= header.workers || !header.buckets)
        return -EBADMSG;
    region = header.buckets * sizeof(struct lbfwd_flow_bucket);
    w->flows_bytes = LBFWD_FLOWS_HEADER + header.workers * region;
    if (!file_holds(fd, w->flows_bytes))
        return -EBADMSG;
    w->flows_map = sharing == MAP_SHARED
                       ? map_shared_huge(fd, w->flows_bytes)
                       : map_file(fd, w->flows_bytes, PROT_READ | PROT_WRITE, sharing);
    if (!w->flows_map)
        return -errno;
    w->flows.all = (const void *)((const uint8_t *)w->flows_map + LBFWD_FLOWS_HEADER);
    w->flows.own = (struct lbfwd_flow_bucket *)(uintptr_t)w->flows.all + (uint64_t)slot * header.buckets;
    w->flows.buckets = header.buckets;
    w->flows.workers = header.workers;
    w->flows.slot = slot;
    return 0;
}

/* As large as it can become: to map a larger one anew would cost the packet path every page of the
 * one in use. */
static inline int map_arena(struct lbfwd_worker *w, int fd)
{
    w->arena = map_file(fd, LBFWD_ARENA_MOST, PROT_READ, MAP_SHARED);
    if (!w->arena)
        return -errno;
    (void)madvise((void *)(uintptr_t)w->arena, LBFWD_ARENA_MOST, MADV_DONTDUMP);
    w->arena_fd = fd;
    return 0;
}

/* The arena only grows. */
static inline int measure_arena(struct lbfwd_worker *w)
{
    uint64_t bytes = READ_SHARED(w->control->arena_bytes);

    if (bytes == w->arena_bytes)
        return 0;
    if (bytes > LBFWD_ARENA_MOST || !file_holds(w->arena_fd, bytes))
        return -EBADMSG;
    w->arena_bytes = bytes;
    return 0;
}

/* Between bursts: use what is published last, and say so; its rows were checked before it was. A
 * state whose head does not check is not used and not acknowledged: the supervisor sees that, and
 * the old one stays whole for as long as the worker refers to it. Returns whether the worker uses
 * what is published. */
static inline int take_up(struct lbfwd_worker *w)
{
    uint64_t published = __atomic_load_n(&w->control->published, __ATOMIC_SEQ_CST);

    if (LIKELY(published == w->published))
        return 1;
    if (measure_arena(w) || snapshot_head_check(w->arena, w->arena_bytes, offset_of(published)))
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

static inline void read_clock(struct lbfwd_worker *w)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    w->now_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static inline uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static inline struct lbfwd_flow_context flow_context(const struct lbfwd_worker *w)
{
    const uint16_t *lifetimes_s = w->published ? w->view.snapshot->lifetimes_s : NULL;
    return flow_context_at(lifetimes_s, (uint16_t)(w->now_ms / 1000));
}

static inline void count_event(struct lbfwd_worker *w, enum lbfwd_event event)
{
    ADD_COUNT(w->counters->events[event], 1);
}

static inline void count_new_flow(struct lbfwd_worker *w, uint32_t service, uint32_t backend)
{
    count_event(w, LBFWD_EVENT_FLOW_NEW);
    ADD_COUNT(w->counters->new_flows_of_services[service], 1);
    ADD_COUNT(w->counters->new_flows_to_backends[backend], 1);
}

/* Whether the node may answer one packet more. */
static inline int may_answer(struct lbfwd_worker *w, enum lbfwd_answer_kind kind)
{
    uint64_t *paid_us = &w->answers_paid_us[kind];
    const uint64_t cost_us = 1000000 / ANSWERS_A_SECOND;
    uint64_t now_us = w->now_ms * 1000, burst_us = ANSWERS_AT_ONCE * cost_us;

    if (*paid_us + burst_us < now_us)
        *paid_us = now_us - burst_us;
    if (*paid_us + cost_us > now_us)
        return 0;
    *paid_us += cost_us;
    return 1;
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

/* An interface that went down leaves an error at the socket; unread, it would wake us for ever. */
static inline void clear_error(int fd)
{
    int error;
    socklen_t length = sizeof error;
    (void)!getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
}

/* Rings whose head could not be found yet (their link was down) are tried again now and then. */
static inline void synchronize_tx(struct lbfwd_worker *w)
{
    for (uint32_t i = 0; i < LBFWD_MAX_TX; i++)
        if (w->tx[i].map && !w->tx[i].usable)
            tx_synchronize(&w->tx[i]);
}

#endif
