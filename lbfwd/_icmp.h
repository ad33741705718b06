/* ICMP to a VIP: echo requests, and errors that quote a packet which a VIP sent. An error belongs
 * to the flow of the quoted packet: its header turned around is the client's. Only the 8 bytes of
 * transport header that RFC 792 guarantees are read. RFC 4443 for IPv6. */
#ifndef LBFWD_ICMP_H
#define LBFWD_ICMP_H

#include "_reply.h"

static inline int is_icmp_error(const struct lbfwd_packet *packet, uint8_t type)
{
    if (packet->family == 4)
        return type == 3 || type == 4 || type == 11 || type == 12;
    return type >= 1 && type <= 4;
}

static inline int is_echo_request(const struct lbfwd_packet *packet, const uint8_t *icmp)
{
    return icmp[0] == (packet->family == 4 ? ICMP4_ECHO_REQUEST : ICMP6_ECHO_REQUEST) && !icmp[1];
}

/* Skips the quoted IP header; returns it and its transport protocol, or NULL. */
static inline const uint8_t *take_quoted_ip(struct lbfwd_cursor *cursor, uint8_t family,
                                            uint8_t *protocol)
{
    const uint8_t *ip = take(cursor, family == 4 ? IPV4_BYTES : IPV6_BYTES);
    struct lbfwd_extensions extensions;

    if (!ip || ip[0] >> 4 != family)
        return NULL;
    if (family == 4) {
        uint32_t options = (ip[0] & 0x0fu) * 4;
        *protocol = ip[9];
        if (options < IPV4_BYTES || !take(cursor, options - IPV4_BYTES) ||
            load_be16(ip + 6) & 0x1fff)
            return NULL;
        return ip;
    }
    if (take_extensions(cursor, ip[6], &extensions) != LBFWD_DROP_NONE ||
        (extensions.fragmented && extensions.fragment_offset))
        return NULL;
    *protocol = extensions.protocol;
    return ip;
}

/* The key of the client's flow whose answer is quoted. */
static inline enum lbfwd_drop parse_quoted(struct lbfwd_packet *packet, struct lbfwd_cursor *cursor)
{
    uint32_t address = packet->family == 4 ? 4 : 16;
    uint8_t protocol;
    const uint8_t *ip = take_quoted_ip(cursor, packet->family, &protocol);
    const uint8_t *source, *transport;

    if (!ip)
        return LBFWD_DROP_ICMP_UNMATCHED;
    source = ip + (packet->family == 4 ? 12 : 8);
    transport = take(cursor, 8);
    if (!transport || (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP) ||
        memcmp(source, destination_of(packet), address))
        return LBFWD_DROP_ICMP_UNMATCHED;
    memcpy(packet->key, source + address, address);
    memcpy(packet->key + address, source, address);
    end_key(packet, load_u16(transport + 2) | (uint32_t)load_u16(transport) << 16, protocol);
    packet->flow_protocol = protocol;
    packet->tcp_flags = 0; /* the quoted ones need not be there, and are the VIP's */
    packet->dst_port = load_be16(transport);
    packet->kind = LBFWD_KIND_ICMP_ERROR;
    return LBFWD_DROP_NONE;
}

static inline enum lbfwd_drop parse_icmp(struct lbfwd_packet *packet)
{
    struct lbfwd_cursor cursor = {packet->ip + packet->l4_offset,
                                  packet->ip_length - packet->l4_offset};
    const uint8_t *icmp = take(&cursor, ICMP_BYTES);

    if (!icmp)
        return LBFWD_DROP_TRUNCATED;
    if (is_icmp_error(packet, icmp[0]))
        return parse_quoted(packet, &cursor);
    if (!is_echo_request(packet, icmp))
        return LBFWD_DROP_UNSUPPORTED_PROTOCOL;
    packet->kind = LBFWD_KIND_ECHO_REQUEST;
    return LBFWD_DROP_NONE;
}

/* Neither a flow's own packet nor a later fragment of one. */
static inline enum lbfwd_drop parse_other(struct lbfwd_packet *packet)
{
    if (packet->protocol != (packet->family == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6))
        return LBFWD_DROP_UNSUPPORTED_PROTOCOL;
    /* A fragmented ICMP message is nothing that a stack sends about a flow. */
    return packet->fragmented ? LBFWD_DROP_FRAGMENT : parse_icmp(packet);
}

/* What a packet to a VIP is, and of which flow. */
static inline enum lbfwd_drop parse_transport(struct lbfwd_packet *packet)
{
    uint8_t family = packet->family;
    enum lbfwd_drop reason;
    int has_ports;

    if (family == 6 && (reason = skip_extensions(packet)))
        return reason;
    has_ports = packet->protocol == IPPROTO_TCP || packet->protocol == IPPROTO_UDP;
    if (packet->fragment_offset && (has_ports || family == 6) &&
        packet->protocol != IPPROTO_ICMPV6) {
        packet->kind = LBFWD_KIND_LATER_FRAGMENT;
        return LBFWD_DROP_NONE;
    }
    return has_ports ? parse_ports(packet) : parse_other(packet);
}

#endif
