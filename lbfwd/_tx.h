/* A TX ring (TPACKET_V3, Documentation/networking/packet_mmap.rst): one output interface of one
 * worker. Frames are written into slots, handed over by one send() a burst, and counted when the
 * kernel has accepted them.
 *
 * The slots between `oldest` and `next` are pending: filled, not yet accepted. The kernel's own
 * head stands at `oldest` whenever something is pending. */
#ifndef LBFWD_TX_H
#define LBFWD_TX_H

#include <errno.h>
#include <linux/if_packet.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "_frame.h"
#include "_contract.h"

/* The kernel refuses the frame at the head this often without any progress: it is dropped. */
#define TX_PATIENCE 8
#define TX_AHEAD 4            /* so many slots before it is filled a slot is prefetched */
#define TX_LEAST (14 + 1280)  /* a slot has room for any answer of the node, whatever the MTU: _reply.h */

/* A frame of the node's own: it is no packet that was forwarded. */
#define OWNER_NODE UINT32_MAX
/* One that is handed over to another node of the fleet. */
#define OWNER_PEER (UINT32_MAX - 1)

struct lbfwd_owner {          /* whom a pending frame counts for */
    uint32_t service;
    uint32_t backend;
    uint64_t bytes;
};

struct lbfwd_tx {
    uint8_t *map;             /* NULL: no ring at this index */
    struct lbfwd_owner *owners;
    uint64_t map_bytes;
    uint32_t frame_bytes;
    uint32_t frames;
    uint32_t usable;          /* of them: all, or none while `next` may not be the kernel's head */
    uint32_t next;            /* slot to fill */
    uint32_t pending;
    uint32_t refusals;        /* sends in a row that moved nothing */
    int fd;                   /* -1: memory only, everything is accepted at once (tests) */
} __attribute__((aligned(64)));

static inline struct tpacket3_hdr *tx_slot(const struct lbfwd_tx *tx, uint32_t index)
{
    return (struct tpacket3_hdr *)(tx->map + (uint64_t)index * tx->frame_bytes);
}

static inline uint32_t tx_step(const struct lbfwd_tx *tx, uint32_t index, uint32_t by)
{
    index += by;
    return index >= tx->frames ? index - tx->frames : index;
}

static inline uint32_t tx_oldest(const struct lbfwd_tx *tx)
{
    return tx_step(tx, tx->next, tx->frames - tx->pending);
}

/* Room in a slot for a frame. */
static inline uint32_t tx_capacity(const struct lbfwd_tx *tx)
{
    return tx->frame_bytes - LBFWD_TX_OFFSET - VNET_BYTES;
}

static inline void tx_count_drop(struct lbfwd_counters *counters, enum lbfwd_drop reason, uint64_t n)
{
    ADD_COUNT(counters->drops[reason], n);
}

static inline void count_packets(struct lbfwd_counter *counter, uint64_t packets, uint64_t bytes)
{
    ADD_COUNT(counter->packets, packets);
    ADD_COUNT(counter->bytes, bytes);
}

static inline void tx_count_lost(struct lbfwd_counters *counters, const struct lbfwd_owner *owner,
                                 enum lbfwd_drop reason)
{
    if (UNLIKELY(owner->service == OWNER_NODE))
        ADD_COUNT(counters->events[LBFWD_EVENT_ANSWER_LOST], 1);
    else
        tx_count_drop(counters, reason, 1);
}

static inline int tx_is_accepted(const struct lbfwd_tx *tx, uint32_t index)
{
    return !(READ_SHARED(tx_slot(tx, index)->tp_status) &
             (TP_STATUS_SEND_REQUEST | TP_STATUS_WRONG_FORMAT));
}

/* How many of the pending frames the kernel took. It takes them in order: when it has the newest it
 * has all, and the others need not be looked at. */
static inline uint32_t tx_accepted(const struct lbfwd_tx *tx)
{
    uint32_t oldest = tx_oldest(tx), accepted = 0;

    if (LIKELY(tx->pending && tx_is_accepted(tx, tx_step(tx, oldest, tx->pending - 1))))
        return tx->pending;
    while (accepted < tx->pending && tx_is_accepted(tx, tx_step(tx, oldest, accepted)))
        accepted++;
    return accepted;
}

/* Counts frames up to `end` for as long as they are for the first one's service; returns the next. */
static inline const struct lbfwd_owner *tx_count_service(struct lbfwd_counters *counters,
                                                         const struct lbfwd_owner *owner,
                                                         const struct lbfwd_owner *end)
{
    const struct lbfwd_owner *first = owner;
    uint32_t service = owner->service;
    uint64_t bytes = 0;

    for (; owner < end && owner->service == service; owner++) {
        if (LIKELY(service < OWNER_PEER))
            count_packets(&counters->backends[owner->backend], 1, owner->bytes);
        bytes += owner->bytes;
    }
    if (LIKELY(service < OWNER_PEER))
        count_packets(&counters->services[service], (uint64_t)(owner - first), bytes);
    else if (service == OWNER_PEER)
        tx_count_drop(counters, LBFWD_DROP_FRAGMENT_TO_PEER, (uint64_t)(owner - first));
    return owner;
}

static inline void tx_count(const struct lbfwd_tx *tx, struct lbfwd_counters *counters, uint32_t from,
                            uint32_t n)
{
    const struct lbfwd_owner *owner = tx->owners + from, *end = owner + n;

    while (owner < end)
        owner = tx_count_service(counters, owner, end);
}

/* Counts what the kernel took since the last call. */
static inline void tx_settle(struct lbfwd_tx *tx, struct lbfwd_counters *counters)
{
    uint32_t settled = tx_accepted(tx), oldest = tx_oldest(tx), to_end = tx->frames - oldest;

    if (!settled)
        return;
    tx_count(tx, counters, oldest, settled < to_end ? settled : to_end);
    if (settled > to_end)
        tx_count(tx, counters, 0, settled - to_end);
    tx->pending -= settled;
    tx->refusals = 0;
}

/* Takes back everything that is pending: the link is gone, and late frames are worse than none. */
static inline void tx_reclaim(struct lbfwd_tx *tx, struct lbfwd_counters *counters,
                              enum lbfwd_drop reason)
{
    uint32_t oldest = tx_oldest(tx);

    for (uint32_t i = 0; i < tx->pending; i++) {
        uint32_t index = tx_step(tx, oldest, i);
        WRITE_SHARED(tx_slot(tx, index)->tp_status, TP_STATUS_AVAILABLE);
        tx_count_lost(counters, &tx->owners[index], reason);
    }
    tx->next = oldest;
    tx->pending = 0;
    tx->refusals = 0;
}

/* Drops the frame at the kernel's head by putting the newest pending frame in its place: the
 * head cannot be skipped, and the frames between shall not wait for it. */
static inline void tx_drop_head(struct lbfwd_tx *tx, struct lbfwd_counters *counters)
{
    uint32_t oldest = tx_oldest(tx), newest = tx_step(tx, tx->next, tx->frames - 1);
    struct tpacket3_hdr *head = tx_slot(tx, oldest), *last = tx_slot(tx, newest);

    tx_count_lost(counters, &tx->owners[oldest], LBFWD_DROP_TX_REFUSED);
    if (oldest != newest) {
        head->tp_len = last->tp_len;
        memcpy((uint8_t *)head + LBFWD_TX_OFFSET, (uint8_t *)last + LBFWD_TX_OFFSET, last->tp_len);
        tx->owners[oldest] = tx->owners[newest];
        WRITE_SHARED(head->tp_status, TP_STATUS_SEND_REQUEST);
    }
    WRITE_SHARED(last->tp_status, TP_STATUS_AVAILABLE);
    tx->next = newest;
    tx->pending--;
    tx->refusals = 0;
}

/* Hands the pending frames to the kernel; never waits. */
static inline void tx_flush(struct lbfwd_tx *tx, struct lbfwd_counters *counters, struct lbfwd_slot *slot)
{
    int error;

    if (!tx->pending || tx->fd < 0)
        return;
    error = send(tx->fd, NULL, 0, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? errno : 0;
    ADD_COUNT(slot->sends, 1);
    tx_settle(tx, counters);
    if (LIKELY(!tx->pending))
        return;
    if (error == ENETDOWN || error == ENXIO || error == ENODEV)
        tx_reclaim(tx, counters, LBFWD_DROP_TX_LINK_DOWN);
    else if (error && error != EAGAIN && error != EINTR && ++tx->refusals >= TX_PATIENCE)
        tx_drop_head(tx, counters);
}

/* A slot that is filled soon: a large ring goes round through the caches. At the ring's end there is
 * none, and nothing to see to: a prefetch reads nothing. */
STEP void tx_prefetch(const struct tpacket3_hdr *slot, uint64_t frame_bytes)
{
    uintptr_t ahead = (uintptr_t)slot + TX_AHEAD * frame_bytes;

    __builtin_prefetch((const void *)ahead, 1);
    __builtin_prefetch((const void *)(ahead + 64), 1);
}

/* The next free slot, or NULL and the reason. */
STEP struct tpacket3_hdr *tx_claim(struct lbfwd_tx *tx, enum lbfwd_drop *reason)
{
    if (LIKELY(tx->pending != tx->usable)) { /* both are 0 without a ring at this index, too */
        uint64_t frame_bytes = tx->frame_bytes;
        struct tpacket3_hdr *slot = (struct tpacket3_hdr *)(tx->map + tx->next * frame_bytes);

        if (LIKELY(READ_SHARED(slot->tp_status) == TP_STATUS_AVAILABLE)) {
            tx_prefetch(slot, frame_bytes);
            return slot;
        }
    }
    *reason = tx->usable ? LBFWD_DROP_TX_RING_FULL : LBFWD_DROP_TX_NOT_READY;
    return NULL;
}

/* Where a slot's frame begins. */
static inline uint8_t *tx_frame(struct tpacket3_hdr *slot)
{
    return (uint8_t *)slot + LBFWD_TX_OFFSET + VNET_BYTES;
}

/* Completes the claimed slot. hdr_len is the whole frame: the kernel then copies it into a linear
 * skb, which small packets are much cheaper to carry in than page fragments (docs/architecture.md).
 * Everything else in the two headers is 0 as the kernel made it: no offload, slots of one size. */
STEP void tx_commit(struct lbfwd_tx *tx, struct tpacket3_hdr *slot, uint32_t length,
                    struct lbfwd_owner owner)
{
    uint8_t *vnet = (uint8_t *)slot + LBFWD_TX_OFFSET;
    uint16_t linear = (uint16_t)length;
    uint32_t next = tx->next;

    memcpy(vnet + offsetof(struct virtio_net_hdr, hdr_len), &linear, sizeof linear);
    slot->tp_len = length + VNET_BYTES;
    tx->owners[next] = owner;
    tx->next = next + 1 == tx->frames ? 0 : next + 1;
    tx->pending++;
    WRITE_SHARED(slot->tp_status, TP_STATUS_SEND_REQUEST);
}

/* Whether no slot has ever been filled: the kernel's head is at the first. */
static inline int tx_is_new(const struct lbfwd_tx *tx)
{
    for (uint32_t i = 0; i < tx->frames; i++)
        if (tx_slot(tx, i)->tp_len)
            return 0;
    return 1;
}

/* Finds the kernel's head in a ring that another worker used: every free slot gets a length that
 * cannot be, and of one send() exactly one slot turns WRONG_FORMAT: the head. Nothing is sent.
 * Frames that the other worker left unsent are thereby taken back: they would go out late. */
static inline void tx_synchronize(struct lbfwd_tx *tx)
{
    uint32_t head = tx->frames;

    for (uint32_t i = 0; i < tx->frames; i++) {
        struct tpacket3_hdr *slot = tx_slot(tx, i);
        if (READ_SHARED(slot->tp_status) & TP_STATUS_SENDING)
            continue;
        slot->tp_len = (uint32_t)-EMSGSIZE; /* negative: refused before anything is read or logged */
        WRITE_SHARED(slot->tp_status, TP_STATUS_SEND_REQUEST);
    }
    (void)!send(tx->fd, NULL, 0, MSG_DONTWAIT | MSG_NOSIGNAL);
    for (uint32_t i = 0; i < tx->frames; i++) {
        struct tpacket3_hdr *slot = tx_slot(tx, i);
        uint32_t status = READ_SHARED(slot->tp_status);
        if (status & TP_STATUS_WRONG_FORMAT)
            head = i;
        if (status & (TP_STATUS_WRONG_FORMAT | TP_STATUS_SEND_REQUEST))
            WRITE_SHARED(slot->tp_status, TP_STATUS_AVAILABLE);
    }
    /* None was: the link is down, or the head is still in flight. */
    tx->usable = head < tx->frames ? tx->frames : 0;
    tx->next = tx->usable ? head : 0;
    tx->pending = 0;
}

static inline int tx_attach(struct lbfwd_tx *tx, int fd, const struct lbfwd_geometry *geometry)
{
    uint64_t bytes = (uint64_t)geometry->block_bytes * geometry->blocks;
    int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED | MAP_POPULATE;

    if (tx->map)
        return -EEXIST;
    if (geometry->frame_bytes < LBFWD_TX_OFFSET + VNET_BYTES + TX_LEAST ||
        geometry->block_bytes % geometry->frame_bytes)
        return -EINVAL;
    *tx = (struct lbfwd_tx){.fd = fd, .map_bytes = bytes, .frame_bytes = geometry->frame_bytes,
                            .frames = (uint32_t)(bytes / geometry->frame_bytes)};
    tx->owners = calloc(tx->frames, sizeof *tx->owners);
    if (!tx->owners)
        return -ENOMEM;
    tx->map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, fd, 0);
    if (tx->map == MAP_FAILED) {
        int error = errno;
        free(tx->owners);
        *tx = (struct lbfwd_tx){.fd = -1};
        return -error;
    }
    if (fd < 0 || tx_is_new(tx))
        tx->usable = tx->frames;
    else
        tx_synchronize(tx);
    return 0;
}

static inline void tx_detach(struct lbfwd_tx *tx)
{
    munmap(tx->map, tx->map_bytes);
    free(tx->owners);
    *tx = (struct lbfwd_tx){.fd = -1};
}

#endif
