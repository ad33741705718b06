/* An IPv4 packet that may be fragmented, and must be: before encapsulation, so that the backend's
 * own stack puts the client's packet together again. RFC 791 sections 2.3 and 3.2. */
#ifndef LBFWD_SPLIT_H
#define LBFWD_SPLIT_H

#include "_segment.h"

#define IPV4_MORE 0x2000
#define IPV4_DONT 0x4000
#define IPV4_OFFSET 0x1fff
#define OPTION_END 0
#define OPTION_NOP 1
#define OPTION_COPIED 0x80

static inline int may_split(const struct lbfwd_packet *packet)
{
    return packet->family == 4 && !(load_be16(packet->ip + 6) & IPV4_DONT);
}

/* Payload bytes of every fragment but the last: a multiple of 8; 0 when not even 8 fit. */
static inline uint32_t split_size(const struct lbfwd_packet *packet, uint32_t most)
{
    return most > packet->l4_offset ? (most - packet->l4_offset) & ~7u : 0;
}

/* Later fragments carry only the options that are marked to be copied; the others become padding. */
static inline void blank_uncopied_options(uint8_t *ip, uint32_t header)
{
    for (uint32_t at = IPV4_BYTES; at < header;) {
        uint32_t length = 1;
        if (ip[at] == OPTION_END)
            return;
        if (ip[at] != OPTION_NOP) {
            length = at + 1 < header ? ip[at + 1] : 0;
            if (length < 2 || at + length > header)
                return;
            if (!(ip[at] & OPTION_COPIED))
                memset(ip + at, OPTION_NOP, length);
        }
        at += length;
    }
}

/* Writes the fragment with the payload bytes from `from` on; returns its length. */
static inline uint32_t write_fragment(uint8_t *ip, const struct lbfwd_frame *frame,
                                      const struct lbfwd_packet *packet, uint32_t from, uint32_t size)
{
    uint32_t header = packet->l4_offset, left = packet->ip_length - header - from;
    uint32_t part = left < size ? left : size;
    uint16_t field = load_be16(packet->ip + 6);
    uint16_t more = part < left ? IPV4_MORE : field & IPV4_MORE;

    memcpy(ip, packet->ip, header);
    memcpy(ip + header, packet->ip + header + from, part);
    if (from)
        blank_uncopied_options(ip, header);
    else if (frame->offload.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)
        store_transport_checksum(ip + header + frame->offload.csum_offset, packet);
    store_be16(ip + 2, (uint16_t)(header + part));
    store_be16(ip + 6, (uint16_t)(more | ((field & IPV4_OFFSET) + from / 8)));
    memset(ip + 10, 0, 2);
    checksum_store(ip + 10, checksum_add(0, ip, header));
    return header + part;
}

#endif
