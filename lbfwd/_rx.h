/* RX rings (Documentation/networking/packet_mmap.rst): V3 hands over blocks of frames, V2 single
 * frames. A worker takes a burst, saves its position *before* it forwards it, and gives the memory
 * back to the kernel afterwards: a packet is taken at most once, whatever becomes of the worker. */
#ifndef LBFWD_RX_H
#define LBFWD_RX_H

#include <errno.h>
#include <linux/if_packet.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "_frame.h"
#include "_contract.h"

#define RX_HEADERS 54                  /* Ethernet, IPv4 and TCP: they may lie in two cache lines */
#define SUPER_FRAME_BYTES (65536 + 64) /* the largest frame a device hands over, and its headers */

struct lbfwd_rx {
    uint8_t *map;                 /* NULL: no ring at this index */
    struct lbfwd_position *saved; /* in shared memory */
    uint8_t *oversize;            /* V2: one frame that did not fit its slot */
    uint64_t map_bytes;
    uint32_t version;
    uint32_t unit_bytes;          /* V3: a block; V2: a frame slot */
    uint32_t units;
    uint32_t index;               /* block or slot to look at next */
    uint32_t taken;               /* V2: slots of the running burst */
    uint32_t left;                /* V3: packets of the held block that were not taken */
    uint32_t offset;              /* V3: where the next of them is */
    int fd;
    int held;                     /* V3: the block at index is ours */
    int synchronized;
};

static inline uint8_t *rx_unit(const struct lbfwd_rx *rx, uint32_t index)
{
    return rx->map + (uint64_t)index * rx->unit_bytes;
}

static inline struct tpacket_hdr_v1 *rx_block(const struct lbfwd_rx *rx, uint32_t index)
{
    return &((struct tpacket_block_desc *)rx_unit(rx, index))->hdr.bh1;
}

/* VID 0 is a priority tag: such a frame is the parent interface's own (IEEE 802.1Q, 9.6). */
static inline uint8_t belongs_to_a_vlan(uint32_t status, uint32_t tci)
{
    return (status & TP_STATUS_VLAN_VALID) && (tci & 0xfff);
}

static inline void describe_frame(struct lbfwd_frame *frame, const uint8_t *header, uint32_t mac,
                                  uint32_t captured, uint32_t wire, uint32_t address_offset)
{
    const struct sockaddr_ll *from = (const struct sockaddr_ll *)(header + address_offset);

    frame->data = header + mac;
    frame->length = captured;
    frame->wire_length = wire;
    frame->packet_type = from->sll_pkttype;
    frame->from_peer = 0;
    memcpy(&frame->offload, frame->data - VNET_BYTES, VNET_BYTES);
}

/* ---- V3 ---- */

/* The oldest block that is ours, where the last worker (if any) left off. */
static inline void rx_v3_synchronize(struct lbfwd_rx *rx)
{
    uint64_t lowest = UINT64_MAX;

    for (uint32_t i = 0; i < rx->units; i++) {
        struct tpacket_hdr_v1 *block = rx_block(rx, i);
        if ((READ_SHARED(block->block_status) & TP_STATUS_USER) && block->seq_num < lowest) {
            lowest = block->seq_num;
            rx->index = i;
            rx->synchronized = 1;
        }
    }
}

static inline void rx_v3_give_block_to_kernel(struct lbfwd_rx *rx)
{
    WRITE_SHARED(rx_block(rx, rx->index)->block_status, TP_STATUS_KERNEL);
    rx->held = 0;
    if (++rx->index == rx->units)
        rx->index = 0;
}

static inline const struct tpacket3_hdr *rx_v3_packet(const struct lbfwd_rx *rx)
{
    return (const struct tpacket3_hdr *)(rx_unit(rx, rx->index) + rx->offset);
}

/* Passes over packets that the last worker took: a packet that killed it is not replayed. */
static inline void rx_v3_skip(struct lbfwd_rx *rx, uint32_t packets)
{
    if (packets > rx->left)
        packets = rx->left;
    rx->left -= packets;
    for (; packets; packets--)
        rx->offset += rx_v3_packet(rx)->tp_next_offset;
}

static inline int rx_v3_hold_block(struct lbfwd_rx *rx)
{
    struct tpacket_hdr_v1 *block;

    if (UNLIKELY(!rx->synchronized))
        rx_v3_synchronize(rx);
    if (UNLIKELY(!rx->synchronized))
        return 0;
    block = rx_block(rx, rx->index);
    if (!(READ_SHARED(block->block_status) & TP_STATUS_USER))
        return 0;
    rx->held = 1;
    rx->left = block->num_pkts;
    rx->offset = block->offset_to_first_pkt;
    if (UNLIKELY(rx->saved->sequence == block->seq_num)) {
        rx_v3_skip(rx, rx->saved->done);
    } else {
        rx->saved->done = 0;
        rx->saved->index = rx->index;
        WRITE_SHARED(rx->saved->sequence, block->seq_num);
    }
    return 1;
}

/* A block in which something is left for us: the last worker may have taken all of the first. */
static inline int rx_v3_hold_packets(struct lbfwd_rx *rx)
{
    while (rx->held || rx_v3_hold_block(rx)) {
        if (LIKELY(rx->left))
            return 1;
        rx_v3_give_block_to_kernel(rx);
    }
    return 0;
}

/* What is read soon of this packet and of the next but one. Near a block's end it may name memory
 * that holds no packet: a prefetch reads nothing. */
static inline void rx_v3_prefetch(const struct tpacket3_hdr *header)
{
    const uint8_t *at = (const uint8_t *)header, *soon = at + 2 * (uint64_t)header->tp_next_offset;

    __builtin_prefetch(at + header->tp_mac);
    __builtin_prefetch(at + header->tp_mac + RX_HEADERS);
    __builtin_prefetch(soon);
    __builtin_prefetch(soon + 64);
}

static inline uint32_t rx_v3_take(struct lbfwd_rx *rx, struct lbfwd_frame *frames, uint32_t most)
{
    uint32_t taken = 0;

    if (!rx_v3_hold_packets(rx))
        return 0;
    for (; taken < most && rx->left; taken++, rx->left--) {
        const struct tpacket3_hdr *header = rx_v3_packet(rx);
        describe_frame(&frames[taken], (const uint8_t *)header, header->tp_mac,
                       header->tp_snaplen, header->tp_len,
                       TPACKET_ALIGN(sizeof(struct tpacket3_hdr)));
        frames[taken].vlan_tagged = belongs_to_a_vlan(header->tp_status, header->hv1.tp_vlan_tci);
        rx_v3_prefetch(header);
        rx->offset += header->tp_next_offset;
    }
    WRITE_SHARED(rx->saved->done, rx->saved->done + taken);
    return taken;
}

/* ---- V2 ---- */

static inline struct tpacket2_hdr *rx_v2_slot(const struct lbfwd_rx *rx, uint32_t index)
{
    return (struct tpacket2_hdr *)rx_unit(rx, index);
}

static inline uint32_t rx_step(const struct lbfwd_rx *rx, uint32_t index, uint32_t by)
{
    index += by;
    return index >= rx->units ? index - rx->units : index;
}

static inline int rx_v2_ready(const struct lbfwd_rx *rx, uint32_t index)
{
    return (READ_SHARED(rx_v2_slot(rx, index)->tp_status) & TP_STATUS_USER) != 0;
}

static inline void rx_v2_give_slots_to_kernel(struct lbfwd_rx *rx)
{
    for (; rx->taken; rx->taken--) {
        WRITE_SHARED(rx_v2_slot(rx, rx->index)->tp_status, TP_STATUS_KERNEL);
        rx->index = rx_step(rx, rx->index, 1);
    }
    WRITE_SHARED(rx->saved->done, 0);
}

/* Gives back what is left of the last worker's burst, then stands where that ended. */
static inline void rx_v2_synchronize(struct lbfwd_rx *rx)
{
    uint32_t burst = rx->saved->done <= LBFWD_BURST ? rx->saved->done : 0;
    uint32_t next = rx->saved->index < rx->units ? rx->saved->index : 0;

    for (uint32_t i = burst; i; i--) {
        struct tpacket2_hdr *slot = rx_v2_slot(rx, rx_step(rx, next, rx->units - i));
        if (READ_SHARED(slot->tp_status) & TP_STATUS_USER)
            WRITE_SHARED(slot->tp_status, TP_STATUS_KERNEL);
    }
    rx->saved->done = 0;
    rx->index = next;
    rx->synchronized = 1;
}

/* A frame larger than its slot comes whole through the socket's queue (PACKET_COPY_THRESH). */
static inline void rx_v2_fetch_oversize(struct lbfwd_rx *rx, struct lbfwd_frame *frame)
{
    ssize_t got = recv(rx->fd, rx->oversize, SUPER_FRAME_BYTES, MSG_DONTWAIT | MSG_TRUNC);

    if (got < VNET_BYTES || got > SUPER_FRAME_BYTES)
        return; /* stays cut, and is counted so */
    frame->data = rx->oversize + VNET_BYTES;
    frame->length = frame->wire_length = (uint32_t)got - VNET_BYTES;
    memcpy(&frame->offload, rx->oversize, VNET_BYTES);
}

static inline uint32_t rx_v2_take(struct lbfwd_rx *rx, struct lbfwd_frame *frames, uint32_t most)
{
    uint32_t taken = 0, at = rx->index;

    for (; taken < most && rx_v2_ready(rx, at); at = rx_step(rx, at, 1)) {
        const struct tpacket2_hdr *header = rx_v2_slot(rx, at);
        int oversize = (header->tp_status & TP_STATUS_COPY) != 0;

        if (UNLIKELY(oversize && taken))
            break; /* there is memory for one: it begins a burst of its own */
        describe_frame(&frames[taken], (const uint8_t *)header, header->tp_mac,
                       header->tp_snaplen, header->tp_len,
                       TPACKET_ALIGN(sizeof(struct tpacket2_hdr)));
        frames[taken].vlan_tagged = belongs_to_a_vlan(header->tp_status, header->tp_vlan_tci);
        if (UNLIKELY(oversize))
            rx_v2_fetch_oversize(rx, &frames[taken]);
        __builtin_prefetch(frames[taken].data);
        taken++;
        if (UNLIKELY(oversize))
            most = taken;
    }
    if (!taken)
        return 0;
    rx->taken = taken;
    rx->saved->done = taken;
    WRITE_SHARED(rx->saved->index, rx_step(rx, rx->index, taken));
    return taken;
}

/* ---- either ---- */

/* Up to `most` frames; they stay valid until rx_give_back. */
static inline uint32_t rx_take(struct lbfwd_rx *rx, struct lbfwd_frame *frames, uint32_t most)
{
    if (rx->version == 3)
        return rx_v3_take(rx, frames, most);
    return rx_v2_take(rx, frames, most);
}

static inline void rx_give_back(struct lbfwd_rx *rx)
{
    if (rx->version == 2)
        rx_v2_give_slots_to_kernel(rx);
    else if (rx->held && !rx->left)
        rx_v3_give_block_to_kernel(rx);
}

static inline void rx_detach(struct lbfwd_rx *rx)
{
    if (rx->map)
        munmap(rx->map, rx->map_bytes);
    free(rx->oversize);
    *rx = (struct lbfwd_rx){.fd = -1};
}

static inline int rx_attach(struct lbfwd_rx *rx, int fd, const struct lbfwd_geometry *geometry,
                            struct lbfwd_position *saved)
{
    uint64_t bytes = (uint64_t)geometry->block_bytes * geometry->blocks;
    uint32_t unit = geometry->version == 3 ? geometry->block_bytes : geometry->frame_bytes;
    struct stat status;
    void *map;

    if (rx->map)
        return -EEXIST;
    if ((geometry->version != 2 && geometry->version != 3) || !unit || bytes % unit)
        return -EINVAL;
    if (fstat(fd, &status) < 0)
        return -errno;
    map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (map == MAP_FAILED)
        return -errno;
    if (saved->ring != status.st_ino)
        *saved = (struct lbfwd_position){.ring = status.st_ino};
    *rx = (struct lbfwd_rx){.map = map, .saved = saved, .map_bytes = bytes, .fd = fd,
                            .version = geometry->version, .unit_bytes = unit,
                            .units = (uint32_t)(bytes / unit)};
    if (rx->version == 2) {
        rx->oversize = malloc(SUPER_FRAME_BYTES);
        if (!rx->oversize) {
            rx_detach(rx);
            return -ENOMEM;
        }
        rx_v2_synchronize(rx);
    }
    return 0;
}

#endif
