/* Set-up of packet sockets, a step a function (packet(7), packet_mmap.rst). ring.py runs the
 * steps in the order of docs/architecture.md and names the one that failed. */
#ifndef LBFWD_SOCKET_H
#define LBFWD_SOCKET_H

#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <sys/socket.h>

#include "_bytes.h"
#include "_contract.h"

#ifndef PACKET_IGNORE_OUTGOING
#define PACKET_IGNORE_OUTGOING 23
#endif
#ifndef PACKET_FANOUT_FLAG_IGNORE_OUTGOING
#define PACKET_FANOUT_FLAG_IGNORE_OUTGOING 0x4000
#endif
#define V2_QUEUE_BYTES (16 << 20) /* super-frames that wait beside a V2 ring */

static inline int set_option(int fd, int level, int option, const void *value, socklen_t length)
{
    return setsockopt(fd, level, option, value, length) < 0 ? -errno : 0;
}

static inline int set_packet_option(int fd, int option, int value)
{
    return set_option(fd, SOL_PACKET, option, &value, sizeof value);
}

static inline int attach_program(int fd, int level, int option, const uint64_t *program,
                                 uint16_t instructions)
{
    struct sock_fprog fprog = {.len = instructions, .filter = (struct sock_filter *)(uintptr_t)program};
    return set_option(fd, level, option, &fprog, sizeof fprog);
}

static inline int rx_options(int fd, uint32_t version)
{
    int bytes = V2_QUEUE_BYTES;
    int error = set_packet_option(fd, PACKET_VERSION, version == 3 ? TPACKET_V3 : TPACKET_V2);

    if (!error)
        error = set_packet_option(fd, PACKET_IGNORE_OUTGOING, 1);
    if (!error)
        error = set_packet_option(fd, PACKET_VNET_HDR, 1);
    if (!error && version == 2)
        error = set_packet_option(fd, PACKET_COPY_THRESH, 1);
    if (!error && version == 2 && set_option(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes))
        error = set_option(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    return error;
}

static inline int set_ring(int fd, int option, const struct lbfwd_geometry *geometry)
{
    struct tpacket_req3 request = {
        .tp_block_size = geometry->block_bytes,
        .tp_block_nr = geometry->blocks,
        .tp_frame_size = geometry->frame_bytes,
        .tp_frame_nr = geometry->frame_bytes
                           ? geometry->block_bytes / geometry->frame_bytes * geometry->blocks : 0,
        .tp_retire_blk_tov = option == PACKET_RX_RING ? geometry->retire_ms : 0,
    };
    socklen_t length = geometry->version == 3 ? sizeof request : sizeof(struct tpacket_req);
    return set_option(fd, SOL_PACKET, option, &request, length);
}

static inline int bind_interface(int fd, int ifindex, int receive)
{
    struct sockaddr_ll address = {
        .sll_family = AF_PACKET,
        .sll_protocol = receive ? htons(ETH_P_ALL) : 0,
        .sll_ifindex = ifindex,
    };
    return bind(fd, (struct sockaddr *)&address, sizeof address) < 0 ? -errno : 0;
}

/* The slot is computed by a program of ours, over a worker count of ours: docs/architecture.md. A
 * group has to be told for itself that outgoing frames are none of its business. */
static inline int fanout_join(int fd, int group)
{
    int flags = PACKET_FANOUT_CBPF | PACKET_FANOUT_FLAG_IGNORE_OUTGOING |
                (group < 0 ? PACKET_FANOUT_FLAG_UNIQUEID : 0);
    int error = set_packet_option(fd, PACKET_FANOUT, (group < 0 ? 0 : group) | flags << 16);
    int joined = 0;
    socklen_t length = sizeof joined;

    if (error)
        return error;
    if (getsockopt(fd, SOL_PACKET, PACKET_FANOUT, &joined, &length) < 0)
        return -errno;
    return joined & 0xffff;
}

static inline int send_buffer(int fd, int bytes)
{
    int effective = 0;
    socklen_t length = sizeof effective;

    if (set_option(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes)) {
        int error = set_option(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
        if (error)
            return error;
    }
    return getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &effective, &length) < 0 ? -errno : effective;
}

static inline int ring_statistics(int fd, struct lbfwd_ring_statistics *out)
{
    struct tpacket_stats_v3 statistics = {0};
    socklen_t length = sizeof statistics;

    if (getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, &statistics, &length) < 0)
        return -errno;
    *out = (struct lbfwd_ring_statistics){statistics.tp_packets, statistics.tp_drops,
                                          statistics.tp_freeze_q_cnt};
    return 0;
}

#endif
