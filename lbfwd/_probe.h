/*
 * Health probes through the tunnel: TUN -> GRE. The kernel's TCP, UDP or ICMP makes the packet; its
 * source port (echo requests: identifier) is the name of a probe, and names the path that it takes.
 * The outer header is written as for a client's packet (_encap.h).
 *
 * One thread pumps while others aim names: a lock, held for the copy of one path. The packet path of
 * clients has no part in this.
 */
#ifndef LBFWD_PROBE_H
#define LBFWD_PROBE_H

#include <pthread.h>
#include <unistd.h>

#include "_reply.h"
#include "_socket.h"

#define PROBE_NAMES 65536
#define PROBE_BYTES 65536    /* no IP packet is larger */
#define PROBE_BATCH 64       /* packets between two looks at the wake descriptor */

struct probe_aim {
    struct lbfwd_path path;
    int ifindex;             /* 0: nothing was aimed at */
};

struct lbfwd_probe {
    pthread_mutex_t lock;
    uint16_t next_identification;
    struct lbfwd_probe_counters counters;
    struct probe_aim aims[PROBE_NAMES];
    uint8_t packet[PROBE_BYTES];
};

/* A packet from TUN, as far as it matters here. */
struct probe_packet {
    uint16_t name;
    uint16_t ethertype_be16;
    uint8_t tos;
};

static inline int probe_read_name(struct lbfwd_cursor cursor, uint8_t protocol, uint16_t *name)
{
    const uint8_t *header = take(&cursor, 8);
    uint32_t at = 0;

    if (!header)
        return 0;
    if ((protocol == IPPROTO_ICMP && header[0] == ICMP4_ECHO_REQUEST) ||
        (protocol == IPPROTO_ICMPV6 && header[0] == ICMP6_ECHO_REQUEST))
        at = 4;
    else if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP)
        return 0;
    *name = load_be16(header + at);
    return 1;
}

/* 1 when the packet carries a name. A fragment that is not the first does not; none is expected. */
static inline int probe_parse(const uint8_t *data, uint32_t length, struct probe_packet *packet)
{
    struct lbfwd_cursor cursor = {data, length};
    const uint8_t *ip = take(&cursor, IPV4_BYTES);

    if (!ip)
        return 0;
    if (ip[0] >> 4 == 4) {
        uint32_t header = (uint32_t)(ip[0] & 15) * 4;
        if (header < IPV4_BYTES || !take(&cursor, header - IPV4_BYTES) ||
            load_be16(ip + 6) & IPV4_FRAGMENTED)
            return 0;
        packet->tos = ip[1];
        packet->ethertype_be16 = __builtin_bswap16(ETHERTYPE_IPV4);
        return probe_read_name(cursor, ip[9], &packet->name);
    }
    if (ip[0] >> 4 != 6 || !take(&cursor, IPV6_BYTES - IPV4_BYTES))
        return 0;
    packet->tos = (uint8_t)(load_be16(ip) >> 4);
    packet->ethertype_be16 = __builtin_bswap16(ETHERTYPE_IPV6);
    return probe_read_name(cursor, ip[6], &packet->name);
}

static inline struct probe_aim probe_aim_of(struct lbfwd_probe *probe, uint16_t name)
{
    struct probe_aim aim;

    pthread_mutex_lock(&probe->lock);
    aim = probe->aims[name];
    pthread_mutex_unlock(&probe->lock);
    return aim;
}

/* Writes the outer header of a packet and counts what has none; its length, 0: not to be sent. */
static inline uint32_t probe_wrap(struct lbfwd_probe *probe, const uint8_t *data, uint32_t length,
                                  uint8_t *header, int *ifindex)
{
    struct probe_packet packet;
    struct lbfwd_wrap wrap = {0};
    struct probe_aim aim = {0};

    if (probe_parse(data, length, &packet))
        aim = probe_aim_of(probe, packet.name);
    if (!aim.ifindex) {
        ADD_COUNT(probe->counters.stray, 1);
        return 0;
    }
    if (length + overhead_of(&aim.path) > aim.path.mtu) {
        ADD_COUNT(probe->counters.too_big, 1);
        return 0;
    }
    *ifindex = aim.ifindex;
    wrap.path = &aim.path;
    wrap.hash = packet.name;
    wrap.tos = packet.tos;
    wrap.ethertype_be16 = packet.ethertype_be16;
    return write_outer(header, &wrap, length, &probe->next_identification);
}

static inline void probe_send(struct lbfwd_probe *probe, uint32_t length, int packet_fd)
{
    uint8_t header[LBFWD_PATH_HEADER];
    int ifindex = 0;
    uint32_t header_length = probe_wrap(probe, probe->packet, length, header, &ifindex);
    struct iovec parts[] = {{header, header_length}, {probe->packet, length}};
    struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_ifindex = ifindex};
    struct msghdr message = {.msg_name = &to, .msg_namelen = sizeof to,
                             .msg_iov = parts, .msg_iovlen = 2};

    if (!header_length)
        return;
    memcpy(&to.sll_protocol, header + 12, sizeof to.sll_protocol);
    if (sendmsg(packet_fd, &message, MSG_DONTWAIT) < 0) {
        ADD_COUNT(probe->counters.unsent, 1);
        return;
    }
    ADD_COUNT(probe->counters.packets, 1);
    ADD_COUNT(probe->counters.bytes, length);
}

/* What waits at the device, up to a batch; 0 or -errno. */
static inline int probe_pump(struct lbfwd_probe *probe, int tun_fd, int packet_fd)
{
    for (int i = 0; i < PROBE_BATCH; i++) {
        ssize_t length = read(tun_fd, probe->packet, sizeof probe->packet);
        if (length < 0)
            return errno == EAGAIN || errno == EINTR ? 0 : -errno;
        probe_send(probe, (uint32_t)length, packet_fd);
    }
    return 0;
}

int lbfwd_probe_new(struct lbfwd_probe **out)
{
    struct lbfwd_probe *probe = calloc(1, sizeof *probe);

    if (!probe)
        return -ENOMEM;
    pthread_mutex_init(&probe->lock, NULL); /* Linux: cannot fail */
    *out = probe;
    return 0;
}

void lbfwd_probe_free(struct lbfwd_probe *probe)
{
    pthread_mutex_destroy(&probe->lock);
    free(probe);
}

void lbfwd_probe_aim(struct lbfwd_probe *probe, uint16_t name, const struct lbfwd_path *path,
                     int ifindex)
{
    pthread_mutex_lock(&probe->lock);
    probe->aims[name].path = *path;
    probe->aims[name].ifindex = ifindex;
    pthread_mutex_unlock(&probe->lock);
}

void lbfwd_probe_count(const struct lbfwd_probe *probe, struct lbfwd_probe_counters *out)
{
    *out = probe->counters;
}

uint32_t lbfwd_probe_wrap(struct lbfwd_probe *probe, const uint8_t *packet, uint32_t length,
                          uint8_t header[LBFWD_PATH_HEADER], int *ifindex)
{
    return probe_wrap(probe, packet, length, header, ifindex);
}

int lbfwd_probe_run(struct lbfwd_probe *probe, int tun_fd, int packet_fd, int wake_fd)
{
    struct pollfd waits[] = {{wake_fd, POLLIN, 0}, {tun_fd, POLLIN, 0}};
    int result = 0;

    while (result == 0) {
        if (poll(waits, 2, -1) < 0) {
            result = errno == EINTR ? 0 : -errno;
            continue;
        }
        if (waits[0].revents)
            break;
        if (waits[1].revents)
            result = probe_pump(probe, tun_fd, packet_fd);
    }
    return result;
}

#endif
