/* What the sender's stack or a receiving NIC left unfinished is finished here, as its hardware
 * would have: a checksum left out, and super-frames (GSO, GRO) that are cut to packets again.
 * virtio specification 1.2, section 5.1.6 (the offload header); RFC 9293, RFC 768. */
#ifndef LBFWD_SEGMENT_H
#define LBFWD_SEGMENT_H

#include "_encap.h"

#define TCP_FIN 0x01
#define TCP_PSH 0x08
#define TCP_CWR 0x80
#define TCP_CHECKSUM_AT 16
#define UDP_CHECKSUM_AT 6

static inline int is_super_frame(const struct lbfwd_frame *frame)
{
    return frame->offload.gso_type != VIRTIO_NET_HDR_GSO_NONE;
}

/* Hardware was to do something to it: a super-frame, or a checksum that is left out. */
static inline int is_unfinished(const struct lbfwd_frame *frame)
{
    return (marks_of(frame) &
            (MARK_GSO_TYPE | MARK_OFFLOAD_FLAG(VIRTIO_NET_HDR_F_NEEDS_CSUM))) != 0;
}

/* How one packet becomes several. */
struct lbfwd_cut {
    uint32_t headers;         /* each part has them: IP and transport header, or IP header only */
    uint32_t payload;         /* bytes to spread over the parts */
    uint32_t size;            /* of each part's payload but the last's */
    uint32_t parts;
};

static inline enum lbfwd_drop plan_cut(const struct lbfwd_frame *frame,
                                       const struct lbfwd_packet *packet, struct lbfwd_cut *cut)
{
    uint8_t kind = frame->offload.gso_type & (uint8_t)~VIRTIO_NET_HDR_GSO_ECN;
    uint8_t tcp = packet->family == 4 ? VIRTIO_NET_HDR_GSO_TCPV4 : VIRTIO_NET_HDR_GSO_TCPV6;
    uint32_t transport;

    if (packet->protocol == IPPROTO_TCP && kind == tcp)
        transport = (packet->ip[packet->l4_offset + 12] >> 4) * 4u;
    else if (packet->protocol == IPPROTO_UDP && kind == VIRTIO_NET_HDR_GSO_UDP_L4)
        transport = UDP_BYTES;
    else
        return LBFWD_DROP_BAD_OFFLOAD;
    cut->headers = packet->l4_offset + transport;
    cut->size = frame->offload.gso_size;
    if (!cut->size || (packet->protocol == IPPROTO_TCP && transport < TCP_BYTES) ||
        cut->headers >= packet->ip_length)
        return LBFWD_DROP_BAD_OFFLOAD;
    cut->payload = packet->ip_length - cut->headers;
    cut->parts = (cut->payload + cut->size - 1) / cut->size;
    return LBFWD_DROP_NONE;
}

static inline uint64_t pseudo_header(const uint8_t *ip, uint8_t family, uint8_t protocol,
                                     uint32_t length)
{
    uint64_t sum = __builtin_bswap32(length);
    sum += __builtin_bswap16(protocol);
    return family == 4 ? checksum_add(sum, ip + 12, 8) : checksum_add(sum, ip + 8, 32);
}

/* Gives segment number n (at ip) its own lengths, identification and IPv4 checksum. */
static inline void finish_segment_ip(uint8_t *ip, const struct lbfwd_packet *packet,
                                     uint32_t length, uint32_t n)
{
    if (packet->family == 6) {
        store_be16(ip + 4, (uint16_t)(length - IPV6_BYTES));
        return;
    }
    store_be16(ip + 2, (uint16_t)length);
    store_be16(ip + 4, (uint16_t)(load_be16(ip + 4) + n));
    memset(ip + 10, 0, 2);
    checksum_store(ip + 10, checksum_add(0, ip, packet->l4_offset));
}

static inline void finish_segment_tcp(uint8_t *ip, const struct lbfwd_packet *packet,
                                      const struct lbfwd_cut *cut, uint32_t length, uint32_t n)
{
    uint8_t *tcp = ip + packet->l4_offset;
    uint32_t tcp_length = length - packet->l4_offset;

    store_be32(tcp + 4, load_be32(tcp + 4) + n * cut->size);
    if (n + 1 < cut->parts)
        tcp[13] &= (uint8_t)~(TCP_FIN | TCP_PSH);
    if (n)
        tcp[13] &= (uint8_t)~TCP_CWR; /* RFC 3168 section 6.1.2: once */
    memset(tcp + 16, 0, 2);
    checksum_store(tcp + 16, checksum_add(pseudo_header(ip, packet->family, IPPROTO_TCP, tcp_length),
                                          tcp, tcp_length));
}

static inline void finish_segment_udp(uint8_t *ip, const struct lbfwd_packet *packet, uint32_t length)
{
    uint8_t *udp = ip + packet->l4_offset;
    uint32_t udp_length = length - packet->l4_offset;

    store_be16(udp + 4, (uint16_t)udp_length);
    if (packet->family == 4 && load_be16(udp + 6) == 0)
        return; /* the sender asked for none */
    memset(udp + 6, 0, 2);
    checksum_store_udp(udp + 6,
                       checksum_add(pseudo_header(ip, packet->family, IPPROTO_UDP, udp_length), udp,
                                    udp_length));
}

/* Writes the n-th segment as an IP packet; returns its length. There must be room for it. */
static inline uint32_t write_segment(uint8_t *ip, const struct lbfwd_packet *packet,
                                     const struct lbfwd_cut *cut, uint32_t n)
{
    uint32_t from = n * cut->size, left = cut->payload - from;
    uint32_t part = left < cut->size ? left : cut->size;
    uint32_t length = cut->headers + part;

    memcpy(ip, packet->ip, cut->headers);
    memcpy(ip + cut->headers, packet->ip + cut->headers + from, part);
    finish_segment_ip(ip, packet, length, n);
    if (packet->protocol == IPPROTO_TCP)
        finish_segment_tcp(ip, packet, cut, length, n);
    else
        finish_segment_udp(ip, packet, length);
    return length;
}

/* A fragment is finished: nothing can be summed or cut without the rest of its datagram. */
static inline int is_unfinished_fragment(const struct lbfwd_frame *frame,
                                         const struct lbfwd_packet *packet)
{
    return packet->fragmented && is_unfinished(frame);
}

/* Whether the checksum that the metadata ask for is the transport header's own: anywhere else it
 * would overwrite what the client sent. That header is known to lie inside the packet. */
static inline int offload_is_sane(const struct lbfwd_frame *frame, const struct lbfwd_packet *packet)
{
    uint32_t begin = ETHERNET_BYTES + packet->l4_offset;
    uint32_t field = packet->protocol == IPPROTO_TCP ? TCP_CHECKSUM_AT : UDP_CHECKSUM_AT;

    if (LIKELY(!(frame->offload.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)))
        return 1;
    return (packet->protocol == IPPROTO_TCP || packet->protocol == IPPROTO_UDP) &&
           frame->offload.csum_start == begin && frame->offload.csum_offset == field;
}

/* Stores the checksum that was left to hardware. The field holds the pseudo-header's part already. */
static inline void store_transport_checksum(uint8_t *field, const struct lbfwd_packet *packet)
{
    uint64_t sum = checksum_add(0, packet->ip + packet->l4_offset,
                                packet->ip_length - packet->l4_offset);

    if (packet->protocol == IPPROTO_UDP)
        checksum_store_udp(field, sum);
    else
        checksum_store(field, sum);
}

/* The copy of the packet at ip gets the checksum that it lacks. */
static inline void complete_checksum(uint8_t *ip, const struct lbfwd_frame *frame,
                                     const struct lbfwd_packet *packet)
{
    if (UNLIKELY(frame->offload.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM))
        store_transport_checksum(ip + packet->l4_offset + frame->offload.csum_offset, packet);
}

#endif
