/* The outer header in front of the client's packet: prebuilt per path, completed per packet.
 * RFC 2784 (GRE), RFC 6040 (ECN: the outer field is a copy), RFC 6864 (DF set: identification 0). */
#ifndef LBFWD_ENCAP_H
#define LBFWD_ENCAP_H

#include "_lookup.h"

static inline uint32_t overhead_of(const struct lbfwd_path *path)
{
    return path->header_len - (uint32_t)ETHERNET_BYTES;
}

/* How one packet goes out: by which path, and what its outer header varies by. */
struct lbfwd_wrap {
    const struct lbfwd_path *path;
    uint64_t hash;            /* of its flow */
    uint8_t tos;
    uint16_t ethertype_be16;  /* of the inner packet */
};

/* Checksum words are added to what was taken over zeros: the fields start as 0. */
STEP void complete_outer_ipv4(uint8_t *ip, uint8_t tos, uint16_t total)
{
    uint16_t prebuilt = load_u16(ip + 10), total_be16 = __builtin_bswap16(total);

    ip[1] = tos;
    memcpy(ip + 2, &total_be16, sizeof total_be16);
    checksum_store_short(ip + 10, (prebuilt ^ 0xffffu) + ((uint32_t)tos << 8) + total_be16);
}

STEP void complete_outer_ipv6(uint8_t *ip, uint8_t traffic_class, uint16_t payload)
{
    store_be16(ip, (uint16_t)(0x6000 | traffic_class << 4));
    store_be16(ip + 4, payload);
}

/* The low bits of the outer source: what NICs and routers that spread by outer addresses see. */
static inline uint32_t source_entropy(const struct lbfwd_path *path, uint64_t hash)
{
    return path->entropy_bits ? mix64(hash) >> (32 - path->entropy_bits) : 0;
}

/* What few paths have: an outer source that varies, an identification because DF is not set. */
static __attribute__((noinline)) void vary_outer(uint8_t *ip, const struct lbfwd_wrap *wrap,
                                                 uint16_t *next_id)
{
    uint32_t entropy_be32 = __builtin_bswap32(source_entropy(wrap->path, wrap->hash));
    int is_ipv4 = wrap->path->header_len == ETHERNET_BYTES + IPV4_BYTES + GRE_BYTES;
    uint8_t *source_end = ip + (is_ipv4 ? 12 : 20);
    uint32_t source = load_u32(source_end) | entropy_be32;
    uint16_t id = wrap->path->fragments ? ++*next_id : 0;

    memcpy(source_end, &source, sizeof source);
    if (!is_ipv4)
        return;
    store_be16(ip + 4, id);
    checksum_store_short(ip + 10, (uint16_t)~load_u16(ip + 10) + (uint32_t)__builtin_bswap16(id) +
                                      (entropy_be32 & 0xffff) + (entropy_be32 >> 16));
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
                            (uint16_t)(ip_length + IPV4_BYTES + GRE_BYTES));
    else
        complete_outer_ipv6(out + ETHERNET_BYTES, wrap->tos, (uint16_t)(ip_length + GRE_BYTES));
    if (UNLIKELY(path->entropy_bits | path->fragments))
        vary_outer(out + ETHERNET_BYTES, wrap, next_id);
    memcpy(out + header - 2, &wrap->ethertype_be16, 2);
    return header;
}

#endif
