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

#define MOST_EXTENSIONS 8    /* IPv6 extension headers that are followed */

enum lbfwd_kind {            /* what a packet to a VIP is, once it is parsed */
    LBFWD_KIND_FLOW,         /* has ports of its own; the first fragment too */
    LBFWD_KIND_LATER_FRAGMENT,
    LBFWD_KIND_ICMP_ERROR,   /* its key is that of the flow it is about */
    LBFWD_KIND_ECHO_REQUEST,
};

struct lbfwd_packet {
    const uint8_t *ip;       /* IP header inside the frame */
    uint32_t ip_length;      /* from the IP header: padding behind it is cut */
    uint32_t l4_offset;      /* from ip */
    uint16_t ethertype;
    uint16_t dst_port;
    uint32_t fragment_id;
    uint16_t fragment_offset; /* in units of 8 bytes */
    uint8_t fragmented;
    uint8_t kind;            /* enum lbfwd_kind */
    uint8_t family;          /* 4 or 6 */
    uint8_t protocol;        /* behind IP header and extensions */
    uint8_t flow_protocol;   /* of the flow it belongs to */
    uint8_t tcp_flags;
    uint8_t tos;             /* DSCP and ECN: TOS or traffic class */
    uint8_t key_length;
    uint8_t key[40];         /* flow key, docs/architecture.md */
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
    packet->fragmented = (load_be16(ip + 6) & 0x3fff) != 0; /* "more fragments", or an offset */
    packet->fragment_offset = load_be16(ip + 6) & 0x1fff;
    packet->fragment_id = load_be16(ip + 4);
    if (UNLIKELY(packet->fragment_offset * 8u + packet->ip_length > UINT16_MAX))
        return LBFWD_DROP_BAD_IP_HEADER; /* no datagram is that long */
    return LBFWD_DROP_NONE;
}

struct lbfwd_extensions {
    uint32_t bytes;
    uint32_t fragment_id;
    uint16_t fragment_offset;
    uint8_t fragmented;
    uint8_t protocol;        /* behind them */
};

static inline int is_extension(uint8_t next_header)
{
    return next_header == IPPROTO_HOPOPTS || next_header == IPPROTO_ROUTING ||
           next_header == IPPROTO_DSTOPTS || next_header == IPPROTO_FRAGMENT;
}

/* Not followed: they authenticate, or belong to protocols that no service has. */
static inline int is_unknown_extension(uint8_t next_header)
{
    return next_header == IPPROTO_AH || next_header == 135 /* Mobility, RFC 6275 */ ||
           next_header == 139 /* HIP, RFC 7401 */ || next_header == 140 /* Shim6, RFC 5533 */;
}

/* One extension header, RFC 8200 sections 4.3 to 4.6. A routing header with segments left is no
 * packet for us to end (and type 0 is for nobody: RFC 5095). */
static inline enum lbfwd_drop take_extension(struct lbfwd_cursor *cursor, struct lbfwd_extensions *e)
{
    const uint8_t *header = take(cursor, 8);
    uint32_t rest;

    if (!header)
        return LBFWD_DROP_TRUNCATED;
    if (e->protocol == IPPROTO_ROUTING && header[3])
        return LBFWD_DROP_EXTENSION_HEADER;
    rest = e->protocol == IPPROTO_FRAGMENT ? 0 : header[1] * 8u;
    if (!take(cursor, rest))
        return LBFWD_DROP_TRUNCATED;
    if (e->protocol == IPPROTO_FRAGMENT) {
        e->fragment_offset = load_be16(header + 2) >> 3;
        e->fragmented = (load_be16(header + 2) & 0xfff9) != 0; /* an atomic one is whole: RFC 6946 */
        e->fragment_id = load_be32(header + 4);
    }
    e->bytes += 8 + rest;
    e->protocol = header[0];
    return LBFWD_DROP_NONE;
}

/* Behind a later fragment's header is the middle of something: nothing is read there. */
static inline enum lbfwd_drop take_extensions(struct lbfwd_cursor *cursor, uint8_t next_header,
                                              struct lbfwd_extensions *e)
{
    enum lbfwd_drop reason = LBFWD_DROP_NONE;

    *e = (struct lbfwd_extensions){.protocol = next_header};
    for (uint32_t n = 0; is_extension(e->protocol) && !e->fragment_offset && !reason; n++)
        reason = n < MOST_EXTENSIONS ? take_extension(cursor, e) : LBFWD_DROP_EXTENSION_HEADER;
    if (!reason && is_unknown_extension(e->protocol))
        return LBFWD_DROP_EXTENSION_HEADER;
    return reason;
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
    packet->fragmented = 0;
    packet->fragment_offset = 0;
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

/* source | destination | source port | destination port | protocol */
static inline void make_flow_key(struct lbfwd_packet *packet, const uint8_t *ports)
{
    uint32_t addresses = packet->family == 4 ? 8 : 32;
    memcpy(packet->key, packet->ip + (packet->family == 4 ? 12 : 8), addresses);
    memcpy(packet->key + addresses, ports, 4);
    packet->key[addresses + 4] = packet->protocol;
    packet->key_length = (uint8_t)(addresses + 5);
}

/* Moves on behind the extension headers. After the look-up of the VIP: what is not for us is
 * counted as that, whatever it carries. */
static inline enum lbfwd_drop skip_extensions(struct lbfwd_packet *packet)
{
    struct lbfwd_cursor cursor = {packet->ip + IPV6_BYTES, packet->ip_length - IPV6_BYTES};
    struct lbfwd_extensions extensions;
    enum lbfwd_drop reason = take_extensions(&cursor, packet->protocol, &extensions);

    packet->l4_offset = IPV6_BYTES + extensions.bytes;
    packet->protocol = extensions.protocol;
    packet->fragmented = extensions.fragmented;
    packet->fragment_offset = extensions.fragment_offset;
    packet->fragment_id = extensions.fragment_id;
    return reason;
}

static inline enum lbfwd_drop parse_ports(struct lbfwd_packet *packet)
{
    struct lbfwd_cursor cursor = {packet->ip + packet->l4_offset,
                                  packet->ip_length - packet->l4_offset};
    int tcp = packet->protocol == IPPROTO_TCP;
    const uint8_t *header = take(&cursor, tcp ? TCP_BYTES : UDP_BYTES);

    if (UNLIKELY(!header))
        return LBFWD_DROP_TRUNCATED;
    packet->tcp_flags = tcp ? header[13] : 0;
    packet->dst_port = load_be16(header + 2);
    packet->flow_protocol = packet->protocol;
    packet->kind = LBFWD_KIND_FLOW;
    make_flow_key(packet, header);
    return LBFWD_DROP_NONE;
}

#endif
