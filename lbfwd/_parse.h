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
    uint16_t ethertype_be16;
    uint16_t l4_offset;      /* from ip; these next ones mostly are constants: one store */
    uint8_t family;          /* 4 or 6 */
    uint8_t kind;            /* enum lbfwd_kind */
    uint8_t fragmented;
    uint8_t key_length;
    uint16_t fragment_offset; /* in units of 8 bytes */
    uint16_t dst_port;
    uint32_t fragment_id;
    uint8_t protocol;        /* behind IP header and extensions */
    uint8_t flow_protocol;   /* of the flow it belongs to */
    uint8_t tcp_flags;
    uint8_t tos;             /* DSCP and ECN: TOS or traffic class */
    uint8_t key[40];         /* flow key, docs/architecture.md */
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

/* The ethertype (network order), or a reason to drop. */
STEP enum lbfwd_drop parse_ethernet(const struct lbfwd_frame *frame, struct lbfwd_packet *packet)
{
    if (UNLIKELY(frame->wire_length > frame->length))
        return LBFWD_DROP_CUT_BY_RING;
    if (UNLIKELY(frame->packet_type == PACKET_OTHERHOST))
        return LBFWD_DROP_OTHER_HOST;
    if (UNLIKELY(frame->vlan_tagged))
        return LBFWD_DROP_VLAN_TAGGED;
    if (UNLIKELY(frame->length < ETHERNET_BYTES))
        return LBFWD_DROP_TRUNCATED;
    memcpy(&packet->ethertype_be16, frame->data + 12, 2);
    return LBFWD_DROP_NONE;
}

RARE enum lbfwd_drop parse_ipv4_fragment(struct lbfwd_packet *packet)
{
    packet->fragmented = 1;
    packet->fragment_offset = load_be16(packet->ip + 6) & 0x1fff;
    packet->fragment_id = load_be16(packet->ip + 4);
    if (packet->fragment_offset * 8u + packet->ip_length > UINT16_MAX)
        return LBFWD_DROP_BAD_IP_HEADER; /* no datagram is that long */
    return LBFWD_DROP_NONE;
}

/* Length and checksum of a header of so many bytes, and what it says of the packet. */
STEP enum lbfwd_drop parse_ipv4_header(struct lbfwd_packet *packet, const uint8_t *ip,
                                       uint32_t available, uint32_t header)
{
    packet->ip = ip;
    packet->ip_length = load_be16(ip + 2);
    if (UNLIKELY(packet->ip_length < header))
        return LBFWD_DROP_BAD_IP_HEADER;
    if (UNLIKELY(packet->ip_length > available))
        return LBFWD_DROP_TRUNCATED;
    if (UNLIKELY(checksum_fold(checksum_add(0, ip, header)) != 0xffff))
        return LBFWD_DROP_BAD_IP_CHECKSUM;
    packet->tos = ip[1];
    packet->protocol = ip[9];
    packet->l4_offset = (uint16_t)header;
    packet->family = 4;
    packet->kind = LBFWD_KIND_FLOW;
    packet->fragmented = 0;
    packet->key_length = LBFWD_KEY4;
    packet->fragment_offset = 0;
    if (UNLIKELY(load_be16(ip + 6) & IPV4_FRAGMENTED))
        return parse_ipv4_fragment(packet);
    return LBFWD_DROP_NONE;
}

RARE enum lbfwd_drop parse_ipv4_options(struct lbfwd_packet *packet, const uint8_t *ip,
                                        uint32_t available)
{
    uint32_t header = (ip[0] & 0x0fu) * 4;

    if (ip[0] >> 4 != 4 || header < IPV4_BYTES)
        return LBFWD_DROP_BAD_IP_HEADER;
    return parse_ipv4_header(packet, ip, available, header);
}

STEP enum lbfwd_drop parse_ipv4(const struct lbfwd_frame *frame, struct lbfwd_packet *packet)
{
    const uint8_t *ip = frame->data + ETHERNET_BYTES;
    uint32_t available = frame->length - ETHERNET_BYTES;

    if (UNLIKELY(available < IPV4_BYTES))
        return LBFWD_DROP_TRUNCATED;
    if (UNLIKELY(ip[0] != IPV4_PLAIN))
        return parse_ipv4_options(packet, ip, available);
    return parse_ipv4_header(packet, ip, available, IPV4_BYTES); /* a constant: loops unroll */
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

STEP enum lbfwd_drop parse_ipv6(const struct lbfwd_frame *frame, struct lbfwd_packet *packet)
{
    const uint8_t *ip = frame->data + ETHERNET_BYTES;
    uint32_t available = frame->length - ETHERNET_BYTES;

    if (UNLIKELY(available < IPV6_BYTES))
        return LBFWD_DROP_TRUNCATED;
    packet->ip = ip;
    packet->ip_length = (uint32_t)IPV6_BYTES + load_be16(ip + 4);
    if (UNLIKELY(ip[0] >> 4 != 6))
        return LBFWD_DROP_BAD_IP_HEADER;
    if (UNLIKELY(packet->ip_length > available))
        return LBFWD_DROP_TRUNCATED;
    packet->tos = (uint8_t)(load_be16(ip) >> 4);
    packet->protocol = ip[6];
    packet->l4_offset = IPV6_BYTES;
    packet->family = 6;
    packet->kind = LBFWD_KIND_FLOW;
    packet->fragmented = 0;
    packet->key_length = LBFWD_KEY6;
    packet->fragment_offset = 0;
    return LBFWD_DROP_NONE;
}

STEP void fill_key(struct lbfwd_packet *packet, const uint8_t *addresses, uint32_t bytes,
                   const uint8_t *ports)
{
    memcpy(packet->key, addresses, bytes);
    memcpy(packet->key + bytes, ports, 4);
    packet->key[bytes + 4] = packet->protocol;
}

/* source | destination | source port | destination port | protocol */
STEP void make_flow_key(struct lbfwd_packet *packet, uint8_t family, const uint8_t *ports)
{
    if (family == 4)
        fill_key(packet, packet->ip + 12, 8, ports);
    else
        fill_key(packet, packet->ip + 8, 32, ports);
}

/* Moves on behind the extension headers. After the look-up of the VIP: what is not for us is
 * counted as that, whatever it carries. */
RARE enum lbfwd_drop skip_extensions(struct lbfwd_packet *packet)
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

STEP enum lbfwd_drop parse_ports(struct lbfwd_packet *packet, uint8_t family)
{
    const uint8_t *header = packet->ip + packet->l4_offset;
    uint32_t available = packet->ip_length - packet->l4_offset;
    uint8_t protocol = packet->protocol, flags = 0;

    if (UNLIKELY(available < UDP_BYTES))
        return LBFWD_DROP_TRUNCATED;
    if (protocol == IPPROTO_TCP) {
        if (UNLIKELY(available < TCP_BYTES))
            return LBFWD_DROP_TRUNCATED;
        flags = header[13];
    }
    packet->flow_protocol = protocol;
    packet->tcp_flags = flags;
    packet->dst_port = load_be16(header + 2);
    make_flow_key(packet, family, header);
    return LBFWD_DROP_NONE;
}

#endif
