/* What the node answers itself, in the VIP's name, back to where the frame came from.
 * RFC 792 and RFC 1812 (ICMP), RFC 4443 (ICMPv6), RFC 1191 and RFC 8201 (path MTU), RFC 9293 (RST). */
#ifndef LBFWD_REPLY_H
#define LBFWD_REPLY_H

#include "_segment.h"

#define ICMP_BYTES 8
#define ICMP4_ECHO_REPLY 0
#define ICMP4_UNREACHABLE 3
#define ICMP4_ECHO_REQUEST 8
#define ICMP6_UNREACHABLE 1
#define ICMP6_TOO_BIG 2
#define ICMP6_ECHO_REQUEST 128
#define ICMP6_ECHO_REPLY 129
#define ICMP4_MOST 576            /* RFC 1812 section 4.3.2.3: an error message is no larger */
#define ICMP6_MOST 1280           /* RFC 4443 section 2.4 (c): the minimum IPv6 MTU */
#define REPLY_TTL 64
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

/* Whether one host sent it, to us alone: only that is answered. What another node has handed over bears
 * no Ethernet addresses any more. RFC 1122 sections 3.2.1.3 and 3.2.2,
 * RFC 4443 section 2.4 (e.3) to (e.6). */
static inline int may_be_answered(const struct lbfwd_frame *frame, const struct lbfwd_packet *packet)
{
    static const uint8_t nobody[15]; /* ::, and ::1 */
    const uint8_t *source = packet->ip + (packet->family == 4 ? 12 : 8);

    if (frame->from_peer || frame->packet_type != PACKET_HOST || (frame->data[0] | frame->data[6]) & 1)
        return 0; /* a group's Ethernet address */
    if (packet->family == 6)
        return source[0] != 0xff && memcmp(source, nobody, sizeof nobody);
    return source[0] != 0 && source[0] != 127 && source[0] < 224;
}

/* Ethernet and IP headers of an answer with so many bytes behind them; returns where those begin. */
static inline uint8_t *reply_headers(uint8_t *out, const struct lbfwd_frame *frame,
                                     const struct lbfwd_packet *packet, uint8_t protocol,
                                     uint32_t length)
{
    uint8_t *ip = out + ETHERNET_BYTES;

    memcpy(out, frame->data + 6, 6);
    memcpy(out + 6, frame->data, 6);
    memcpy(out + 12, &packet->ethertype_be16, 2);
    if (packet->family == 6) {
        store_be32(ip, 0x60000000);
        store_be16(ip + 4, (uint16_t)length);
        ip[6] = protocol;
        ip[7] = REPLY_TTL;
        memcpy(ip + 8, packet->ip + 24, 16);
        memcpy(ip + 24, packet->ip + 8, 16);
        return ip + IPV6_BYTES;
    }
    memset(ip, 0, IPV4_BYTES);
    ip[0] = 0x45;
    store_be16(ip + 2, (uint16_t)(IPV4_BYTES + length));
    ip[6] = 0x40; /* DF: the identification may be 0 (RFC 6864) */
    ip[8] = REPLY_TTL;
    ip[9] = protocol;
    memcpy(ip + 12, packet->ip + 16, 4);
    memcpy(ip + 16, packet->ip + 12, 4);
    checksum_store(ip + 10, checksum_add(0, ip, IPV4_BYTES));
    return ip + IPV4_BYTES;
}

/* An ICMP error that quotes the packet; `rest` is the second word of its header. */
static inline uint32_t write_icmp_error(uint8_t *out, const struct lbfwd_frame *frame,
                                        const struct lbfwd_packet *packet, uint8_t type,
                                        uint8_t code, uint32_t rest)
{
    uint32_t header = packet->family == 4 ? IPV4_BYTES : IPV6_BYTES;
    uint32_t most = (packet->family == 4 ? ICMP4_MOST : ICMP6_MOST) - header - ICMP_BYTES;
    uint32_t quoted = packet->ip_length < most ? packet->ip_length : most;
    uint8_t protocol = packet->family == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6;
    uint8_t *icmp = reply_headers(out, frame, packet, protocol, ICMP_BYTES + quoted);
    uint64_t sum = 0;

    icmp[0] = type;
    icmp[1] = code;
    store_be16(icmp + 2, 0);
    store_be32(icmp + 4, rest);
    memcpy(icmp + ICMP_BYTES, packet->ip, quoted);
    if (packet->family == 6)
        sum = pseudo_header(icmp - IPV6_BYTES, 6, IPPROTO_ICMPV6, ICMP_BYTES + quoted);
    checksum_store(icmp + 2, checksum_add(sum, icmp, ICMP_BYTES + quoted));
    return ETHERNET_BYTES + header + ICMP_BYTES + quoted;
}

/* "Fragmentation needed" (RFC 1191) or "packet too big" (RFC 4443 section 3.2). */
static inline uint32_t write_too_big(uint8_t *out, const struct lbfwd_frame *frame,
                                     const struct lbfwd_packet *packet, uint32_t mtu)
{
    if (packet->family == 4)
        return write_icmp_error(out, frame, packet, ICMP4_UNREACHABLE, 4, mtu);
    return write_icmp_error(out, frame, packet, ICMP6_TOO_BIG, 0, mtu);
}

static inline uint32_t write_port_unreachable(uint8_t *out, const struct lbfwd_frame *frame,
                                              const struct lbfwd_packet *packet)
{
    if (packet->family == 4)
        return write_icmp_error(out, frame, packet, ICMP4_UNREACHABLE, 3, 0);
    return write_icmp_error(out, frame, packet, ICMP6_UNREACHABLE, 4, 0);
}

/* The request's message comes back whole; its checksum is adjusted, not made anew (RFC 1624), so
 * that a damaged request does not become a sound reply. */
static inline uint32_t write_echo_reply(uint8_t *out, const struct lbfwd_frame *frame,
                                        const struct lbfwd_packet *packet)
{
    uint32_t length = packet->ip_length - packet->l4_offset;
    uint8_t protocol = packet->family == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6;
    uint8_t *icmp = reply_headers(out, frame, packet, protocol, length);
    uint16_t before, after, check;

    memcpy(icmp, packet->ip + packet->l4_offset, length);
    memcpy(&before, icmp, 2);
    icmp[0] = packet->family == 4 ? ICMP4_ECHO_REPLY : ICMP6_ECHO_REPLY;
    memcpy(&after, icmp, 2);
    memcpy(&check, icmp + 2, 2);
    /* Like UDP's never 0: over nothing but zeros that would not verify, 0xffff always does. */
    checksum_store_udp(icmp + 2, (uint64_t)(uint16_t)~check + (uint16_t)~before + after);
    return (uint32_t)(icmp - out) + length;
}

/* Whether a RST can say what it answers: not a RST itself, and its data begin where they can. */
static inline int may_reset(const struct lbfwd_packet *packet)
{
    uint32_t header = (packet->ip[packet->l4_offset + 12] >> 4) * 4u;

    return !(packet->tcp_flags & TCP_RST) && header >= TCP_BYTES &&
           header <= packet->ip_length - packet->l4_offset;
}

/* RFC 9293 section 3.10.7.1: what a closed port answers to any segment but a RST. */
static inline uint32_t write_reset(uint8_t *out, const struct lbfwd_frame *frame,
                                   const struct lbfwd_packet *packet)
{
    const uint8_t *segment = packet->ip + packet->l4_offset;
    uint8_t *tcp = reply_headers(out, frame, packet, IPPROTO_TCP, TCP_BYTES);
    const uint8_t *ip = out + ETHERNET_BYTES;
    uint32_t data = packet->ip_length - packet->l4_offset - (segment[12] >> 4) * 4u;

    memset(tcp, 0, TCP_BYTES);
    memcpy(tcp, segment + 2, 2);
    memcpy(tcp + 2, segment, 2);
    tcp[12] = (TCP_BYTES / 4) << 4;
    tcp[13] = TCP_RST;
    if (segment[13] & TCP_ACK) {
        memcpy(tcp + 4, segment + 8, 4);
    } else {
        data += !!(segment[13] & TCP_SYN) + !!(segment[13] & TCP_FIN);
        store_be32(tcp + 8, load_be32(segment + 4) + data);
        tcp[13] |= TCP_ACK;
    }
    checksum_store(tcp + 16, checksum_add(pseudo_header(ip, packet->family, IPPROTO_TCP, TCP_BYTES),
                                          tcp, TCP_BYTES));
    return (uint32_t)(tcp - out) + TCP_BYTES;
}

#endif
