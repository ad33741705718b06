/* What must be true of every frame that leaves, said by code of its own: nothing here calls the
 * packet path. RFC 791, 8200, 792, 4443, 9293, 2784. */
#ifndef FUZZ_INVARIANTS_H
#define FUZZ_INVARIANTS_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MUST(fact) \
    do { \
        if (!(fact)) { \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #fact); \
            abort(); \
        } \
    } while (0)

struct ip_view {              /* one IP packet, whole */
    const uint8_t *at;
    uint32_t length;
    uint32_t header;          /* IPv4 with options; IPv6 without extensions */
    int family;
};

static uint32_t be16(const uint8_t *at) { return (uint32_t)at[0] << 8 | at[1]; }

/* RFC 1071, a word at a time; bytes behind an odd length count as 0. */
static uint32_t ones_sum(uint32_t sum, const uint8_t *at, uint32_t length)
{
    for (uint32_t i = 0; i < length; i++)
        sum += i % 2 ? at[i] : (uint32_t)at[i] << 8;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return sum;
}

static int sound(uint32_t sum) { return sum == 0xffff; }

static const uint8_t *source_of(const struct ip_view *ip) { return ip->at + (ip->family == 4 ? 12 : 8); }
static uint32_t address_bytes(const struct ip_view *ip) { return ip->family == 4 ? 4 : 16; }
static uint32_t tos_of(const struct ip_view *ip)
{
    return ip->family == 4 ? ip->at[1] : (be16(ip->at) >> 4 & 0xff);
}

/* Whether an ICMP, TCP or UDP message in the packet has a right checksum. */
static int transport_sound(const struct ip_view *ip, uint8_t protocol, uint32_t offset)
{
    uint32_t length = ip->length - offset, sum = 0;

    if (ip->family == 6 || protocol != 1) {
        sum = ones_sum(protocol + (length >> 16), source_of(ip), 2 * address_bytes(ip));
        sum = ones_sum(sum + (length & 0xffff), NULL, 0);
    }
    return sound(ones_sum(sum, ip->at + offset, length));
}

/* An IP packet that fills so many bytes exactly, with a right header. */
static struct ip_view well_formed_ip(const uint8_t *at, uint32_t length)
{
    struct ip_view ip = {.at = at, .length = length, .family = at[0] >> 4};

    MUST(length >= 20);
    MUST(ip.family == 4 || ip.family == 6);
    if (ip.family == 6) {
        MUST(length >= 40 && be16(at + 4) + 40 == length);
        ip.header = 40;
        return ip;
    }
    ip.header = (at[0] & 15u) * 4;
    MUST(ip.header >= 20 && ip.header <= length);
    MUST(be16(at + 2) == length);
    MUST(sound(ones_sum(0, at, ip.header)));
    MUST((be16(at + 6) & 0x1fff) * 8 + length - ip.header <= 65535);
    return ip;
}

/* Whether it is a part of a datagram: by any fragment header that it has, should it have several. */
static int is_fragment(const struct ip_view *ip)
{
    uint8_t next = ip->at[6], header;
    uint32_t at = 40;

    if (ip->family == 4)
        return (be16(ip->at + 6) & 0x3fff) != 0;
    while ((next == 0 || next == 43 || next == 44 || next == 60) && at + 8 <= ip->length) {
        if (next == 44 && (be16(ip->at + at + 2) & 0xfff9))
            return 1;
        header = next;
        next = ip->at[at];
        at += 8 + (header == 44 ? 0 : ip->at[at + 1] * 8u);
    }
    return 0;
}

/* A frame through the tunnel to a backend, or to another node: then GRE has `flags`, and a fragment in
 * it. Returns the inner packet. */
static struct ip_view check_tunnel(const uint8_t *frame, uint32_t length, uint32_t mtu, uint32_t flags)
{
    struct ip_view outer = well_formed_ip(frame + 14, length - 14), inner;
    const uint8_t *gre = outer.at + outer.header;

    MUST(outer.length <= mtu);
    MUST(outer.header == (outer.family == 4 ? 20 : 40) && outer.length > outer.header + 4);
    MUST(outer.at[outer.family == 4 ? 8 : 7] == 64);
    MUST(be16(gre) == flags && (be16(gre + 2) == 0x0800 || be16(gre + 2) == 0x86dd));
    inner = well_formed_ip(gre + 4, outer.length - outer.header - 4);
    MUST(inner.family == (be16(gre + 2) == 0x0800 ? 4 : 6));
    /* RFC 6040: what met congestion between nodes, the outer header alone says. */
    MUST(tos_of(&outer) == tos_of(&inner) || tos_of(&outer) == (tos_of(&inner) | 3));
    MUST(!flags || is_fragment(&inner));
    return inner;
}

static void check_icmp_error(const struct ip_view *ip, const uint8_t *icmp, const uint8_t *cause)
{
    uint32_t mtu = be16(icmp + 6), most = ip->family == 4 ? 576 : 1280;
    uint32_t quoted = ip->length - ip->header - 8;
    int too_big = ip->family == 4 ? icmp[0] == 3 && icmp[1] == 4 : icmp[0] == 2 && icmp[1] == 0;
    int port = ip->family == 4 ? icmp[0] == 3 && icmp[1] == 3 : icmp[0] == 1 && icmp[1] == 4;

    MUST(too_big || port);
    MUST(ip->length <= most);
    MUST(!too_big || mtu >= (ip->family == 4 ? 68 : 1280));
    MUST(!memcmp(icmp + 8, cause, quoted));
}

/* An answer goes to where its cause came from, and is sound. cause: the frame it answers. */
static void check_answer(const uint8_t *frame, uint32_t length, const uint8_t *cause)
{
    struct ip_view ip = well_formed_ip(frame + 14, length - 14);
    uint8_t protocol = ip.at[ip.family == 4 ? 9 : 6];
    const uint8_t *there = source_of(&ip), *message = ip.at + ip.header;
    const uint8_t *here = cause + 14 + (ip.family == 4 ? 12 : 8);
    uint32_t bytes = address_bytes(&ip);

    MUST(!memcmp(frame, cause + 6, 6) && !memcmp(frame + 6, cause, 6));
    MUST(!(frame[0] & 1) && !(frame[6] & 1));
    MUST(!memcmp(there, here + bytes, bytes) && !memcmp(there + bytes, here, bytes));
    MUST(here[0] != 0 || ip.family == 6);
    MUST(ip.family == 4 ? here[0] < 224 && here[0] != 127 : here[0] != 0xff);
    MUST(ip.at[ip.family == 4 ? 8 : 7] == 64);
    if (protocol == 6) {
        MUST(ip.length == ip.header + 20 && message[13] & 4 && message[12] == 0x50);
        MUST(transport_sound(&ip, 6, ip.header));
    } else {
        MUST(protocol == (ip.family == 4 ? 1 : 58) && ip.length >= ip.header + 8);
        if (message[0] == (ip.family == 4 ? 0 : 129))
            return; /* an echo reply is as sound as its request */
        MUST(transport_sound(&ip, protocol, ip.header));
        check_icmp_error(&ip, message, cause + 14);
    }
}

#endif
