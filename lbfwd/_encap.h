/* The outer header in front of the client's packet: prebuilt per path, completed per packet.
 * RFC 2784 (GRE), RFC 6040 (ECN: the outer field is a copy), RFC 6864 (DF set: identification 0). */
#ifndef LBFWD_ENCAP_H
#define LBFWD_ENCAP_H

#include "_lookup.h"

static inline uint32_t overhead_of(const struct lbfwd_path *path)
{
    return path->header_len - (uint32_t)ETHERNET_BYTES;
}

static inline void complete_outer_ipv4(uint8_t *ip, uint8_t tos, uint16_t total)
{
    uint16_t prebuilt;

    memcpy(&prebuilt, ip + 10, sizeof prebuilt);
    ip[1] = tos;
    store_be16(ip + 2, total);
    /* The prebuilt checksum was taken with both fields 0: add what they are now. */
    checksum_store(ip + 10, (uint64_t)(uint16_t)~prebuilt + __builtin_bswap16(tos) +
                                __builtin_bswap16(total));
}

static inline void complete_outer_ipv6(uint8_t *ip, uint8_t traffic_class, uint16_t payload)
{
    store_be16(ip, (uint16_t)(0x6000 | traffic_class << 4));
    store_be16(ip + 4, payload);
}

/* Writes Ethernet, outer IP and GRE for an inner packet of ip_length bytes; returns their length. */
static inline uint32_t write_outer(uint8_t *out, const struct lbfwd_path *path,
                                   const struct lbfwd_packet *packet, uint32_t ip_length)
{
    uint32_t header = path->header_len;

    memcpy(out, path->header, LBFWD_PATH_HEADER); /* fixed size: a few wide stores */
    if (header == ETHERNET_BYTES + IPV4_BYTES + GRE_BYTES)
        complete_outer_ipv4(out + ETHERNET_BYTES, packet->tos,
                            (uint16_t)(ip_length + IPV4_BYTES + GRE_BYTES));
    else
        complete_outer_ipv6(out + ETHERNET_BYTES, packet->tos, (uint16_t)(ip_length + GRE_BYTES));
    store_be16(out + header - 2, packet->ethertype);
    return header;
}

#endif
