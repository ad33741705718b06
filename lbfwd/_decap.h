/*
 * Unwraps GRE in user space, for a backend whose kernel has no GRE device: raw sockets -> TUN.
 *
 * Accepted is what lbfwd sends, the header of RFC 2784: 4 bytes, or 8 with a checksum, which is
 * verified. Keys and sequence numbers (RFC 2890) ask for services that this end does not give (a
 * key names another tunnel, a sequence number asks for order): refused, as is every other version.
 *
 * The includer defines _GNU_SOURCE before its first include (recvmmsg).
 */
#ifndef LBFWD_DECAP_H
#define LBFWD_DECAP_H

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "_bytes.h"
#include "_checksum.h"
#include "_contract.h"

#define DECAP_BATCH 32       /* packets a system call takes */
#define DECAP_BYTES 65536    /* no IP packet is larger; GRO may well hand over one near that */
#define DECAP_GRE_CHECKSUM 0x8000
#define DECAP_GRE_REFUSED 0x7c07 /* bits 1-5 (RFC 2784 section 2.3: must be discarded), version */

enum decap_verdict { DECAP_GOOD, DECAP_MALFORMED, DECAP_REFUSED };

struct decap_batch {
    struct mmsghdr messages[DECAP_BATCH];
    struct iovec places[DECAP_BATCH];
    uint8_t data[DECAP_BATCH][DECAP_BYTES];
};

/* A raw IPv4 socket hands over the outer header; a raw IPv6 socket has already taken it off. */
static inline enum decap_verdict decap_skip_outer_ipv4(struct lbfwd_cursor *cursor)
{
    const uint8_t *header = take(cursor, 20);
    if (!header || header[0] >> 4 != 4 || (header[0] & 15) < 5)
        return DECAP_MALFORMED;
    return take(cursor, (uint32_t)(header[0] & 15) * 4 - 20) ? DECAP_GOOD : DECAP_MALFORMED;
}

static inline enum decap_verdict decap_skip_gre(struct lbfwd_cursor *cursor, uint16_t *protocol)
{
    struct lbfwd_cursor whole = *cursor;
    const uint8_t *header = take(cursor, 4);
    if (!header)
        return DECAP_MALFORMED;
    uint16_t flags = load_be16(header);
    *protocol = load_be16(header + 2);
    if (flags & DECAP_GRE_REFUSED || (*protocol != 0x0800 && *protocol != 0x86dd))
        return DECAP_REFUSED;
    if (!(flags & DECAP_GRE_CHECKSUM))
        return DECAP_GOOD;
    if (!take(cursor, 4) || checksum_fold(checksum_add(0, whole.at, whole.left)) != 0xffff)
        return DECAP_MALFORMED;
    return DECAP_GOOD;
}

/* Length of the inner packet by its own header, 0 when that contradicts the bytes at hand. */
static inline uint32_t decap_inner_length(struct lbfwd_cursor inner, uint16_t protocol)
{
    uint32_t held = inner.left, length, least;
    const uint8_t *header = take(&inner, protocol == 0x0800 ? 20 : 40);
    if (!header || header[0] >> 4 != (protocol == 0x0800 ? 4 : 6))
        return 0;
    if (protocol == 0x0800) {
        least = (uint32_t)(header[0] & 15) * 4;
        length = load_be16(header + 2);
    } else {
        least = 40;
        length = 40 + (uint32_t)load_be16(header + 4);
    }
    return least >= 20 && length >= least && length <= held ? length : 0;
}

/*
 * GRO and senders on veth leave the transport checksum to hardware: the field then holds the sum
 * of the pseudo header alone. A raw socket does not tell, and TUN would not believe it, so finish
 * the sum. (A finished checksum that happens to look like that comes out unchanged.)
 */
static inline void decap_finish_checksum(uint8_t *packet, uint32_t length)
{
    int ipv4 = packet[0] >> 4 == 4;
    uint32_t offset = ipv4 ? (uint32_t)(packet[0] & 15) * 4 : 40;
    uint8_t protocol = packet[ipv4 ? 9 : 6];
    uint32_t field = protocol == 6 ? 16 : 6, least = protocol == 6 ? 20 : 8;
    if ((protocol != 6 && protocol != 17) || length - offset < least)
        return;
    if (ipv4 && load_be16(packet + 6) & 0x3fff) /* a fragment holds part of what is summed */
        return;
    uint8_t *segment = packet + offset, *place = segment + field;
    uint8_t tail[4] = {0, protocol, (uint8_t)((length - offset) >> 8), (uint8_t)(length - offset)};
    uint64_t pseudo = checksum_add(0, packet + (ipv4 ? 12 : 8), ipv4 ? 8 : 32);
    uint16_t unfinished = checksum_fold(checksum_add(pseudo, tail, sizeof tail));
    if (memcmp(place, &unfinished, sizeof unfinished) != 0)
        return;
    uint64_t sum = checksum_add(0, segment, length - offset);
    if (protocol == 17)
        checksum_store_udp(place, sum);
    else
        checksum_store(place, sum);
}

/* Finds the inner packet in what a raw socket gave. */
static inline enum decap_verdict decap_unwrap(int family, uint8_t *data, uint32_t length,
                                              uint8_t **inner, uint32_t *inner_length)
{
    struct lbfwd_cursor cursor = {data, length};
    enum decap_verdict verdict = DECAP_GOOD;
    uint16_t protocol = 0;
    if (family == AF_INET)
        verdict = decap_skip_outer_ipv4(&cursor);
    if (verdict == DECAP_GOOD)
        verdict = decap_skip_gre(&cursor, &protocol);
    if (verdict != DECAP_GOOD)
        return verdict;
    *inner_length = decap_inner_length(cursor, protocol);
    if (!*inner_length)
        return DECAP_MALFORMED;
    *inner = data + (cursor.at - data);
    decap_finish_checksum(*inner, *inner_length);
    return DECAP_GOOD;
}

/* -errno when the TUN device is gone; a packet that it will not have is counted. */
static inline int decap_deliver(int tun_fd, const uint8_t *packet, uint32_t length,
                                struct lbfwd_decap_counters *counters)
{
    if (write(tun_fd, packet, length) == (ssize_t)length) {
        ADD_COUNT(counters->packets, 1);
        ADD_COUNT(counters->bytes, length);
        return 0;
    }
    if (errno == EBADF || errno == EBADFD)
        return -errno;
    ADD_COUNT(counters->refused, 1);
    return 0;
}

/* One batch from one raw socket; 0 or -errno. */
static inline int decap_pump(struct decap_batch *batch, int family, int raw_fd, int tun_fd,
                             struct lbfwd_decap_counters *counters)
{
    int result = 0;
    int taken = recvmmsg(raw_fd, batch->messages, DECAP_BATCH, MSG_DONTWAIT, NULL);
    if (taken < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    for (int i = 0; i < taken && result == 0; i++) {
        uint8_t *inner = NULL;
        uint32_t length = 0;
        enum decap_verdict verdict = DECAP_MALFORMED;
        if (!(batch->messages[i].msg_hdr.msg_flags & MSG_TRUNC))
            verdict = decap_unwrap(family, batch->data[i], batch->messages[i].msg_len, &inner,
                                   &length);
        if (verdict == DECAP_GOOD)
            result = decap_deliver(tun_fd, inner, length, counters);
        else if (verdict == DECAP_MALFORMED)
            ADD_COUNT(counters->malformed, 1);
        else
            ADD_COUNT(counters->refused, 1);
    }
    return result;
}

static inline struct decap_batch *decap_batch_new(void)
{
    struct decap_batch *batch = calloc(1, sizeof *batch);
    for (int i = 0; batch && i < DECAP_BATCH; i++) {
        batch->places[i] = (struct iovec){batch->data[i], DECAP_BYTES};
        batch->messages[i].msg_hdr.msg_iov = &batch->places[i];
        batch->messages[i].msg_hdr.msg_iovlen = 1;
    }
    return batch;
}

int lbfwd_decap_run(int raw4_fd, int raw6_fd, int tun_fd, int wake_fd,
                    struct lbfwd_decap_counters *counters)
{
    /* poll() passes over negative descriptors: a family that the kernel unwraps has none */
    struct pollfd waits[] = {{wake_fd, POLLIN, 0}, {raw4_fd, POLLIN, 0}, {raw6_fd, POLLIN, 0}};
    struct decap_batch *batch = decap_batch_new();
    int result = batch ? 0 : -ENOMEM;
    while (result == 0) {
        if (poll(waits, 3, -1) < 0) {
            result = errno == EINTR ? 0 : -errno;
            continue;
        }
        if (waits[0].revents)
            break;
        if (waits[1].revents)
            result = decap_pump(batch, AF_INET, raw4_fd, tun_fd, counters);
        if (waits[2].revents && result == 0)
            result = decap_pump(batch, AF_INET6, raw6_fd, tun_fd, counters);
    }
    free(batch);
    return result;
}

#endif
