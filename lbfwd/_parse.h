/* From a frame to addresses, protocol and flow key; bounds are checked before every read.
 * RFC 791 (IPv4), RFC 8200 (IPv6), RFC 9293 (TCP), RFC 768 (UDP). */
#ifndef LBFWD_PARSE_H
#define LBFWD_PARSE_H

#include <linux/if_packet.h>
#include <netinet/in.h>

#include "_checksum.h"
#include "_frame.h"
#include "_hash.h"
#include "_contract.h"

#define ETHERNET_BYTES 14
#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_IPV6 0x86dd
#define ETHERTYPE_VLAN 0x8100
#define ETHERTYPE_QINQ 0x88a8
#define IPV4_BYTES 20
#define IPV6_BYTES 40
#define TCP_BYTES 20
#define UDP_BYTES 8
#define GRE_BYTES 4

struct lbfwd_packet {
    const uint8_t *ip;       /* IP header inside the frame */
    uint32_t ip_length;      /* from the IP header: padding behind it is cut */
    uint32_t l4_offset;      /* from ip */
    uint16_t ethertype;
    uint16_t dst_port;
    uint8_t family;          /* 4 or 6 */
    uint8_t protocol;        /* of the transport header */
    uint8_t tos;             /* DSCP and ECN: TOS or traffic class */
    uint8_t key_length;
    uint8_t key[40];         /* flow key, DESIGN section 4 */
};

static inline const uint8_t *destination_of(const struct lbfwd_packet *packet)
{
    return packet->ip + (packet->family == 4 ? 16 : 24);
}

static inline enum lbfwd_drop parse_ethernet(const struct lbfwd_frame *frame,
                                             struct lbfwd_cursor *cursor,
                                             struct lbfwd_packet *packet)
{
    const uint8_t *ethernet;

    if (UNLIKELY(frame->wire_length > frame->length))
        return LBFWD_DROP_CUT_BY_RING;
    if (UNLIKELY(frame->packet_type == PACKET_OTHERHOST))
        return LBFWD_DROP_OTHER_HOST;
    if (UNLIKELY(frame->vlan_tagged))
        return LBFWD_DROP_VLAN_TAGGED;
    *cursor = (struct lbfwd_cursor){frame->data, frame->length};
    ethernet = take(cursor, ETHERNET_BYTES);
    if (UNLIKELY(!ethernet))
        return LBFWD_DROP_TRUNCATED;
    packet->ethertype = load_be16(ethernet + 12);
    if (UNLIKELY(packet->ethertype == ETHERTYPE_VLAN || packet->ethertype == ETHERTYPE_QINQ))
        return LBFWD_DROP_VLAN_TAGGED;
    return LBFWD_DROP_NONE;
}

static inline enum lbfwd_drop parse_ipv4(struct lbfwd_cursor *cursor, struct lbfwd_packet *packet)
{
    uint32_t available = cursor->left;
    const uint8_t *ip = take(cursor, IPV4_BYTES);
    uint32_t header;

    if (UNLIKELY(!ip))
        return LBFWD_DROP_TRUNCATED;
    header = (ip[0] & 0x0fu) * 4;
    packet->ip = ip;
    packet->ip_length = load_be16(ip + 2);
    if (UNLIKELY(ip[0] >> 4 != 4 || header < IPV4_BYTES || packet->ip_length < header))
        return LBFWD_DROP_BAD_IP_HEADER;
    if (UNLIKELY(packet->ip_length > available))
        return LBFWD_DROP_TRUNCATED;
    if (UNLIKELY(checksum_fold(checksum_add(0, ip, header)) != 0xffff))
        return LBFWD_DROP_BAD_IP_CHECKSUM;
    packet->family = 4;
    packet->tos = ip[1];
    packet->protocol = ip[9];
    packet->l4_offset = header;
    return LBFWD_DROP_NONE;
}

static inline enum lbfwd_drop parse_ipv6(struct lbfwd_cursor *cursor, struct lbfwd_packet *packet)
{
    uint32_t available = cursor->left;
    const uint8_t *ip = take(cursor, IPV6_BYTES);

    if (UNLIKELY(!ip))
        return LBFWD_DROP_TRUNCATED;
    packet->ip = ip;
    packet->ip_length = IPV6_BYTES + load_be16(ip + 4);
    if (UNLIKELY(ip[0] >> 4 != 6))
        return LBFWD_DROP_BAD_IP_HEADER;
    if (UNLIKELY(packet->ip_length > available))
        return LBFWD_DROP_TRUNCATED;
    packet->family = 6;
    packet->tos = (uint8_t)(load_be16(ip) >> 4);
    packet->protocol = ip[6];
    packet->l4_offset = IPV6_BYTES;
    return LBFWD_DROP_NONE;
}

static inline enum lbfwd_drop parse_ip(struct lbfwd_cursor *cursor, struct lbfwd_packet *packet)
{
    switch (packet->ethertype) {
    case ETHERTYPE_IPV4:
        return parse_ipv4(cursor, packet);
    case ETHERTYPE_IPV6:
        return parse_ipv6(cursor, packet);
    default:
        return LBFWD_DROP_NOT_IP;
    }
}

static inline int is_fragment(const struct lbfwd_packet *packet)
{
    if (packet->family == 4)
        return (load_be16(packet->ip + 6) & 0x3fff) != 0; /* MF or an offset */
    return packet->protocol == IPPROTO_FRAGMENT;
}

static inline int is_extension_header(uint8_t next_header)
{
    return next_header == IPPROTO_HOPOPTS || next_header == IPPROTO_ROUTING ||
           next_header == IPPROTO_DSTOPTS || next_header == IPPROTO_AH ||
           next_header == 135 /* Mobility, RFC 6275 */ || next_header == 139 /* HIP, RFC 7401 */ ||
           next_header == 140 /* Shim6, RFC 5533 */;
}

/* source | destination | source port | destination port | protocol */
static inline void make_flow_key(struct lbfwd_packet *packet, const uint8_t *ports)
{
    uint32_t addresses = packet->family == 4 ? 8 : 32;
    memcpy(packet->key, packet->ip + (packet->family == 4 ? 12 : 8), addresses);
    memcpy(packet->key + addresses, ports, 4);
    packet->key[addresses + 4] = packet->protocol;
    packet->key_length = (uint8_t)(addresses + 5);
}

static inline enum lbfwd_drop parse_transport(struct lbfwd_packet *packet)
{
    struct lbfwd_cursor cursor = {packet->ip + packet->l4_offset,
                                  packet->ip_length - packet->l4_offset};
    const uint8_t *header;

    if (UNLIKELY(is_fragment(packet)))
        return LBFWD_DROP_FRAGMENT;
    if (UNLIKELY(packet->family == 6 && is_extension_header(packet->protocol)))
        return LBFWD_DROP_EXTENSION_HEADER;
    if (packet->protocol == IPPROTO_TCP)
        header = take(&cursor, TCP_BYTES);
    else if (packet->protocol == IPPROTO_UDP)
        header = take(&cursor, UDP_BYTES);
    else
        return LBFWD_DROP_UNSUPPORTED_PROTOCOL;
    if (UNLIKELY(!header))
        return LBFWD_DROP_TRUNCATED;
    packet->dst_port = load_be16(header + 2);
    make_flow_key(packet, header);
    return LBFWD_DROP_NONE;
}

#endif
