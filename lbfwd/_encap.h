/* The outer header in front of the client's packet: prebuilt per path, completed per packet.
 * RFC 2784 (GRE), RFC 6040 (ECN: the outer field is a copy), RFC 6864 (DF set: identification 0). */
#ifndef LBFWD_ENCAP_H
#define LBFWD_ENCAP_H

#include "_lookup.h"

static inline uint32_t overhead_of(const struct lbfwd_path *path)
{
    return path->header_len - (uint32_t)ETHERNET_BYTES;
}

/* Checksum words are added to what was taken over zeros: the fields start as 0. */
STEP void complete_outer_ipv4(uint8_t *ip, uint8_t tos, uint16_t total, uint16_t id,
                              uint32_t entropy)
{
    uint16_t prebuilt, total_be16 = __builtin_bswap16(total);
    uint32_t sum;

    memcpy(&prebuilt, ip + 10, sizeof prebuilt);
    sum = (uint16_t)~prebuilt + ((uint32_t)tos << 8) + total_be16;
    ip[1] = tos;
    memcpy(ip + 2, &total_be16, sizeof total_be16);
    if (UNLIKELY(id | entropy)) {
        store_be16(ip + 4, id);
        store_be32(ip + 12, load_be32(ip + 12) | entropy);
        sum += (uint32_t)__builtin_bswap16(id) + (__builtin_bswap32(entropy) & 0xffff) +
               (__builtin_bswap32(entropy) >> 16);
    }
    checksum_store_short(ip + 10, sum);
}

STEP void complete_outer_ipv6(uint8_t *ip, uint8_t traffic_class, uint16_t payload,
                              uint32_t entropy)
{
    store_be16(ip, (uint16_t)(0x6000 | traffic_class << 4));
    store_be16(ip + 4, payload);
    if (UNLIKELY(entropy))
        store_be32(ip + 20, load_be32(ip + 20) | entropy);
}

/* How one packet goes out: by which path, and what its outer header varies by. */
struct lbfwd_wrap {
    const struct lbfwd_path *path;
    uint32_t entropy;         /* low bits of the outer source */
    uint8_t tos;
    uint16_t ethertype_be16;  /* of the inner packet */
};

/* The low bits of the outer source: what NICs and routers that spread by outer addresses see. */
static inline uint32_t source_entropy(const struct lbfwd_path *path, uint64_t hash)
{
    if (LIKELY(!path->entropy_bits))
        return 0;
    return mix64(hash) >> (32 - path->entropy_bits);
}

/* The outer identification: 0 where DF is set. */
STEP uint16_t identification(const struct lbfwd_path *path, uint16_t *next_id)
{
    return LIKELY(!path->fragments) ? 0 : ++*next_id;
}

/* Writes Ethernet, outer IP and GRE for an inner packet of ip_length bytes; returns their length. */
STEP uint32_t write_outer(uint8_t *out, const struct lbfwd_wrap *wrap, uint32_t ip_length,
                          uint16_t *next_id)
{
    const struct lbfwd_path *path = wrap->path;
    uint32_t header = path->header_len;

    memcpy(out, path->header, LBFWD_PATH_HEADER); /* fixed size: a few wide stores */
    if (LIKELY(header == ETHERNET_BYTES + IPV4_BYTES + GRE_BYTES))
        complete_outer_ipv4(out + ETHERNET_BYTES, wrap->tos,
                            (uint16_t)(ip_length + IPV4_BYTES + GRE_BYTES),
                            identification(path, next_id), wrap->entropy);
    else
        complete_outer_ipv6(out + ETHERNET_BYTES, wrap->tos, (uint16_t)(ip_length + GRE_BYTES),
                            wrap->entropy);
    memcpy(out + header - 2, &wrap->ethertype_be16, 2);
    return header;
}

#endif
