/* What most packets are: a TCP segment or UDP datagram, whole and finished, right behind an IP header
 * that has nothing unusual about it. They are told from all others by a few comparisons; what the
 * others are, or what is wrong with them, _parse.h and _icmp.h say. */
#ifndef LBFWD_PLAIN_H
#define LBFWD_PLAIN_H

#include "_parse.h"

#define PLAIN_LEAST (ETHERNET_BYTES + IPV6_BYTES) /* either header fits, and no wire carries less */

/* Everything there, for this host, and nothing left to hardware. */
STEP int is_plain_frame(const struct lbfwd_frame *frame)
{
    return frame->wire_length <= frame->length && frame->length >= PLAIN_LEAST &&
           !(marks_of(frame) & ~MARK_OFFLOAD_FLAG(VIRTIO_NET_HDR_F_DATA_VALID));
}

_Static_assert(PACKET_HOST == 0, "see above");

/* A transport header of so many bytes at least; of no protocol that is plain: no packet is so long. */
STEP uint32_t transport_bytes(uint8_t protocol)
{
    if (protocol == IPPROTO_TCP)
        return TCP_BYTES;
    return LIKELY(protocol == IPPROTO_UDP) ? UDP_BYTES : UINT16_MAX + 1;
}

/* What the two families have in common. */
STEP void describe_plain(struct lbfwd_packet *packet, const uint8_t *ip, uint32_t length,
                         uint8_t protocol, const uint8_t *transport)
{
    uint64_t last = siphash_last(load_u32(transport), protocol, packet->key_length);

    packet->ip = ip;
    packet->ip_length = length;
    packet->protocol = packet->flow_protocol = protocol;
    packet->tcp_flags = protocol == IPPROTO_TCP ? transport[13] : 0;
    memcpy(packet->key + packet->key_length - LBFWD_KEY_END, &last, sizeof last);
}

/* These return whether it is one. */
STEP int parse_plain_ipv4(const struct lbfwd_frame *frame, struct lbfwd_packet *packet)
{
    const uint8_t *ip = frame->data + ETHERNET_BYTES;
    uint32_t available = frame->length - ETHERNET_BYTES, length = load_be16(ip + 2);
    uint8_t protocol = ip[9];

    if (UNLIKELY(ip[0] != IPV4_PLAIN || length > available ||
                 length < IPV4_BYTES + transport_bytes(protocol) ||
                 load_u16(ip + 6) & __builtin_bswap16(IPV4_FRAGMENTED) || !is_right_ipv4_header(ip, IPV4_BYTES)))
        return 0;
    describe(packet, ETHERTYPE_IPV4, IPV4_BYTES);
    packet->tos = ip[1];
    memcpy(packet->key, ip + 12, 8);
    describe_plain(packet, ip, length, protocol, ip + IPV4_BYTES);
    return 1;
}

STEP int parse_plain_ipv6(const struct lbfwd_frame *frame, struct lbfwd_packet *packet)
{
    const uint8_t *ip = frame->data + ETHERNET_BYTES;
    uint32_t available = frame->length - ETHERNET_BYTES, length = IPV6_BYTES + load_be16(ip + 4);
    uint8_t protocol = ip[6];

    if (UNLIKELY(ip[0] >> 4 != 6 || length > available ||
                 length < IPV6_BYTES + transport_bytes(protocol)))
        return 0;
    describe(packet, ETHERTYPE_IPV6, IPV6_BYTES);
    packet->tos = (uint8_t)(load_be16(ip) >> 4);
    memcpy(packet->key, ip + 8, 32);
    describe_plain(packet, ip, length, protocol, ip + IPV6_BYTES);
    return 1;
}

#endif
