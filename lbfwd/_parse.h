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
#define IPV4_PLAIN 0x45          /* version 4, no options */
#define IPV4_FRAGMENTED 0x3fff /* "more fragments", or an offset */
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
    uint16_t fragment_offset; /* in units of 8 bytes */
    uint16_t dst_port;
    uint16_t ethertype_be16; /* from here to `fragmented` mostly constants: one store */
    uint16_t l4_offset;      /* from ip */
    uint8_t family;          /* 4 or 6 */
    uint8_t key_length;
    uint8_t kind;            /* enum lbfwd_kind */
    uint8_t fragmented;
    uint8_t tcp_flags;
    uint8_t protocol;        /* behind IP header and extensions */
    uint8_t flow_protocol;   /* of the flow it belongs to */
    uint8_t tos;             /* DSCP and ECN: TOS or traffic class */
    uint32_t fragment_id;
    uint8_t key[40];         /* flow key, docs/architecture.md; the last word as SipHash reads it */
};

/* Later fragments and echo requests have none. */
static inline int has_ports_of_its_flow(const struct lbfwd_packet *packet)
{
    return packet->kind == LBFWD_KIND_FLOW || packet->kind == LBFWD_KIND_ICMP_ERROR;
}

static inline const uint8_t *destination_of(const struct lbfwd_packet *packet)
{
    return packet->ip + (packet->family == 4 ? 16 : 24);
}

/* What holds for every packet of the family, as long as nothing else is found. */
static inline void describe(struct lbfwd_packet *packet, uint16_t ethertype, uint32_t l4_offset)
{
    packet->ethertype_be16 = __builtin_bswap16(ethertype);
    packet->l4_offset = (uint16_t)l4_offset;
    packet->family = ethertype == ETHERTYPE_IPV4 ? 4 : 6;
    packet->key_length = ethertype == ETHERTYPE_IPV4 ? LBFWD_KEY4 : LBFWD_KEY6;
    packet->kind = LBFWD_KIND_FLOW;
    packet->fragmented = 0;
}

/* A whole untagged Ethernet header of a frame to this host, or a reason to drop. */
static inline enum lbfwd_drop parse_ethernet(const struct lbfwd_frame *frame)
{
    if (frame->wire_length > frame->length)
        return LBFWD_DROP_CUT_BY_RING;
    if (frame->packet_type == PACKET_OTHERHOST)
        return LBFWD_DROP_OTHER_HOST;
    if (frame->vlan_tagged)
        return LBFWD_DROP_VLAN_TAGGED;
    if (frame->length < ETHERNET_BYTES)
        return LBFWD_DROP_TRUNCATED;
    return LBFWD_DROP_NONE;
}

static inline enum lbfwd_drop parse_ipv4_fragment(struct lbfwd_packet *packet)
{
    packet->fragmented = 1;
    packet->fragment_offset = load_be16(packet->ip + 6) & 0x1fff;
    packet->fragment_id = load_be16(packet->ip + 4);
    if (packet->fragment_offset * 8u + packet->ip_length > UINT16_MAX)
        return LBFWD_DROP_BAD_IP_HEADER; /* no datagram is that long */
    return LBFWD_DROP_NONE;
}

/* A right header adds up to a multiple of 65535, 0 of its sum: RFC 1071. */
static inline int is_right_ipv4_header(const uint8_t *ip, uint32_t bytes)
{
    return checksum_add(0, ip, bytes) % 0xffff == 0;
}

static inline enum lbfwd_drop parse_ipv4(const struct lbfwd_frame *frame, struct lbfwd_packet *packet)
{
    const uint8_t *ip = frame->data + ETHERNET_BYTES;
    uint32_t available = frame->length - ETHERNET_BYTES, header;

    if (available < IPV4_BYTES)
        return LBFWD_DROP_TRUNCATED;
    header = (ip[0] & 0x0fu) * 4;
    packet->ip = ip;
    packet->ip_length = load_be16(ip + 2);
    if (ip[0] >> 4 != 4 || header < IPV4_BYTES || packet->ip_length < header)
        return LBFWD_DROP_BAD_IP_HEADER;
    if (packet->ip_length > available)
        return LBFWD_DROP_TRUNCATED;
    if (!is_right_ipv4_header(ip, header))
        return LBFWD_DROP_BAD_IP_CHECKSUM;
    describe(packet, ETHERTYPE_IPV4, header);
    packet->tos = ip[1];
    packet->protocol = ip[9];
    packet->fragment_offset = 0;
    if (load_be16(ip + 6) & IPV4_FRAGMENTED)
        return parse_ipv4_fragment(packet);
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

static inline enum lbfwd_drop parse_ipv6(const struct lbfwd_frame *frame, struct lbfwd_packet *packet)
{
    const uint8_t *ip = frame->data + ETHERNET_BYTES;
    uint32_t available = frame->length - ETHERNET_BYTES;

    if (available < IPV6_BYTES)
        return LBFWD_DROP_TRUNCATED;
    packet->ip = ip;
    packet->ip_length = (uint32_t)IPV6_BYTES + load_be16(ip + 4);
    if (ip[0] >> 4 != 6)
        return LBFWD_DROP_BAD_IP_HEADER;
    if (packet->ip_length > available)
        return LBFWD_DROP_TRUNCATED;
    describe(packet, ETHERTYPE_IPV6, IPV6_BYTES);
    packet->tos = (uint8_t)(load_be16(ip) >> 4);
    packet->protocol = ip[6];
    packet->fragment_offset = 0;
    return LBFWD_DROP_NONE;
}

/* An IP packet with a right header, or a reason to drop. */
static inline enum lbfwd_drop parse_ip(const struct lbfwd_frame *frame, struct lbfwd_packet *packet)
{
    enum lbfwd_drop reason = parse_ethernet(frame);

    if (reason)
        return reason;
    switch (load_be16(frame->data + 12)) {
    case ETHERTYPE_IPV4:
        return parse_ipv4(frame, packet);
    case ETHERTYPE_IPV6:
        return parse_ipv6(frame, packet);
    case ETHERTYPE_VLAN:
    case ETHERTYPE_QINQ:
        return LBFWD_DROP_VLAN_TAGGED;
    default:
        return LBFWD_DROP_NOT_IP;
    }
}

/* Behind the addresses: source port | destination port | protocol, and what SipHash puts behind. */
static inline void end_key(struct lbfwd_packet *packet, uint32_t ports, uint8_t protocol)
{
    uint64_t last = siphash_last(ports, protocol, packet->key_length);
    memcpy(packet->key + packet->key_length - LBFWD_KEY_END, &last, sizeof last);
}

/* A key without ports, for now. */
static inline void begin_key(struct lbfwd_packet *packet)
{
    uint32_t bytes = packet->family == 4 ? 8 : 32;
    memcpy(packet->key, packet->ip + (packet->family == 4 ? 12 : 8), bytes);
}

/* Moves on behind the extension headers. After the look-up of the VIP: what is not for us is
 * counted as that, whatever it carries. */
static inline enum lbfwd_drop skip_extensions(struct lbfwd_packet *packet)
{
    struct lbfwd_cursor cursor = {packet->ip + IPV6_BYTES, packet->ip_length - IPV6_BYTES};
    struct lbfwd_extensions extensions;
    enum lbfwd_drop reason = take_extensions(&cursor, packet->protocol, &extensions);

    packet->l4_offset = (uint16_t)(IPV6_BYTES + extensions.bytes);
    packet->protocol = extensions.protocol;
    packet->fragmented = extensions.fragmented;
    packet->fragment_offset = extensions.fragment_offset;
    packet->fragment_id = extensions.fragment_id;
    return reason;
}

static inline enum lbfwd_drop parse_ports(struct lbfwd_packet *packet)
{
    const uint8_t *header = packet->ip + packet->l4_offset;
    uint32_t available = packet->ip_length - packet->l4_offset;
    uint8_t protocol = packet->protocol, flags = 0;

    if (available < UDP_BYTES)
        return LBFWD_DROP_TRUNCATED;
    if (protocol == IPPROTO_TCP) {
        if (available < TCP_BYTES)
            return LBFWD_DROP_TRUNCATED;
        flags = header[13];
    }
    packet->flow_protocol = protocol;
    packet->tcp_flags = flags;
    packet->dst_port = load_be16(header + 2);
    begin_key(packet);
    end_key(packet, load_u32(header), protocol);
    return LBFWD_DROP_NONE;
}

#endif
