/* From a packet and its path to frames in a TX ring: wrapped, cut, split, or answered. */
#ifndef LBFWD_EMIT_H
#define LBFWD_EMIT_H

#include "_icmp.h"
#include "_split.h"
#include "_worker.h"

/* What is known about a packet when it is to be emitted. */
struct lbfwd_route {
    struct lbfwd_wrap wrap;
    struct lbfwd_tx *tx;
    struct lbfwd_owner owner;
};

/* A free slot of the ring; when it is full, what is pending is sent and it is tried once more. */
static inline uint8_t *claim_or_flush(struct lbfwd_worker *w, struct lbfwd_tx *tx,
                                      enum lbfwd_drop *reason)
{
    uint8_t *out = tx_claim(tx, reason);
    if (LIKELY(out != NULL))
        return out;
    tx_flush(tx, w->counters, w->slot);
    return tx_claim(tx, reason);
}

/* A frame in the making that goes back to where the received one came from. */
struct lbfwd_answer {
    uint8_t *out;             /* NULL: no answer */
    struct lbfwd_tx *tx;
};

static inline struct lbfwd_answer begin_answer(struct lbfwd_worker *w,
                                               const struct lbfwd_frame *frame,
                                               enum lbfwd_answer_kind kind)
{
    struct lbfwd_answer answer = {.tx = &w->tx[w->back[frame->rx]]};
    enum lbfwd_drop reason;

    if (!may_answer(w, kind)) {
        count_event(w, LBFWD_EVENT_ANSWER_SUPPRESSED);
        return answer;
    }
    answer.out = claim_or_flush(w, answer.tx, &reason);
    if (!answer.out)
        count_event(w, LBFWD_EVENT_ANSWER_LOST);
    return answer;
}

static inline void end_answer(struct lbfwd_worker *w, struct lbfwd_answer answer, uint32_t length,
                              enum lbfwd_event event)
{
    tx_commit(answer.tx, length, (struct lbfwd_owner){.service = OWNER_NODE});
    count_event(w, event);
}

/* The largest inner packet that goes through the tunnel. */
static inline uint32_t inner_mtu(const struct lbfwd_path *path)
{
    uint32_t overhead = overhead_of(path);
    return path->mtu > overhead ? path->mtu - overhead : 0;
}

/* Tells the sender the tunnel's MTU. Below the minimum of its family no sender would go. */
static inline enum lbfwd_drop answer_too_big(struct lbfwd_worker *w, const struct lbfwd_frame *frame,
                                             const struct lbfwd_packet *packet, uint32_t mtu)
{
    const uint32_t least = packet->family == 4 ? 68 : 1280;
    struct lbfwd_answer answer;

    if (packet->kind == LBFWD_KIND_ICMP_ERROR || packet->kind == LBFWD_KIND_LATER_FRAGMENT ||
        !may_be_answered(frame, packet))
        return LBFWD_DROP_TOO_BIG; /* RFC 1122 section 3.2.2, RFC 4443 section 2.4 (e) */
    answer = begin_answer(w, frame, ANSWER_TOO_BIG);
    if (answer.out)
        end_answer(w, answer, write_too_big(answer.out, frame, packet, mtu > least ? mtu : least),
                   LBFWD_EVENT_TOO_BIG_SENT);
    return LBFWD_DROP_TOO_BIG;
}

/* The service has no usable backend: the sender is told, where that is wished. */
static inline enum lbfwd_drop answer_empty(struct lbfwd_worker *w, const struct lbfwd_frame *frame,
                                           const struct lbfwd_packet *packet,
                                           const struct lbfwd_service *service)
{
    int tcp = packet->protocol == IPPROTO_TCP;
    struct lbfwd_answer answer;

    if (service->empty != LBFWD_EMPTY_REJECT || packet->kind != LBFWD_KIND_FLOW ||
        (tcp && !may_reset(packet)) || !may_be_answered(frame, packet))
        return LBFWD_DROP_NO_BACKEND;
    answer = begin_answer(w, frame, ANSWER_REJECT);
    if (!answer.out)
        return LBFWD_DROP_NO_BACKEND;
    if (tcp)
        end_answer(w, answer, write_reset(answer.out, frame, packet), LBFWD_EVENT_RESET_SENT);
    else
        end_answer(w, answer, write_port_unreachable(answer.out, frame, packet),
                   LBFWD_EVENT_UNREACHABLE_SENT);
    return LBFWD_DROP_REJECTED;
}

static inline enum lbfwd_drop answer_echo(struct lbfwd_worker *w, const struct lbfwd_frame *frame,
                                          const struct lbfwd_packet *packet)
{
    struct lbfwd_answer answer;
    enum lbfwd_drop reason;

    if (!may_be_answered(frame, packet))
        return LBFWD_DROP_ECHO_REFUSED;
    if (!may_answer(w, ANSWER_ECHO)) {
        count_event(w, LBFWD_EVENT_ANSWER_SUPPRESSED);
        return LBFWD_DROP_RATE_LIMITED;
    }
    answer.tx = &w->tx[w->back[frame->rx]];
    answer.out = claim_or_flush(w, answer.tx, &reason);
    if (!answer.out)
        return reason;
    if (packet->ip_length + ETHERNET_BYTES + IPV6_BYTES > tx_capacity(answer.tx))
        return LBFWD_DROP_TOO_BIG;
    tx_commit(answer.tx, write_echo_reply(answer.out, frame, packet),
              (struct lbfwd_owner){.service = OWNER_NODE});
    return LBFWD_DROP_ECHO_ANSWERED;
}

static inline void commit_wrapped(struct lbfwd_route *route, uint32_t header, uint32_t length)
{
    route->owner.bytes = length;
    tx_commit(route->tx, header + length, route->owner);
}

/* Several packets from one, the segments of a super-frame or the fragments of a packet: each ends
 * in a counter of its own, and those that find no room do not stop the others. */
static inline void emit_parts(struct lbfwd_worker *w, const struct lbfwd_frame *frame,
                              const struct lbfwd_packet *packet, const struct lbfwd_cut *cut,
                              struct lbfwd_route *route)
{
    ADD_COUNT(w->slot->seen, cut->parts - 1);
    for (uint32_t n = 0; n < cut->parts; n++) {
        enum lbfwd_drop reason = LBFWD_DROP_NONE;
        uint8_t *out = claim_or_flush(w, route->tx, &reason);
        uint32_t left = cut->payload - n * cut->size, header, length;

        if (UNLIKELY(!out)) {
            tx_count_drop(w->counters, reason, 1);
            continue;
        }
        length = cut->headers + (left < cut->size ? left : cut->size);
        header = write_outer(out, &route->wrap, length, &w->next_identification);
        if (is_super_frame(frame))
            write_segment(out + header, packet, cut, n);
        else
            write_fragment(out + header, frame, packet, n * cut->size, cut->size);
        commit_wrapped(route, header, length);
    }
}

/* Too big for the tunnel: split where the sender allows it, else the sender is told. */
static inline enum lbfwd_drop emit_too_big(struct lbfwd_worker *w, const struct lbfwd_frame *frame,
                                           const struct lbfwd_packet *packet,
                                           struct lbfwd_route *route, uint32_t mtu)
{
    struct lbfwd_cut cut = {.headers = packet->l4_offset,
                            .payload = packet->ip_length - packet->l4_offset,
                            .size = split_size(packet, mtu)};

    if (!may_split(packet) || !cut.size)
        return answer_too_big(w, frame, packet, mtu);
    cut.parts = (cut.payload + cut.size - 1) / cut.size;
    count_event(w, LBFWD_EVENT_PACKET_SPLIT);
    emit_parts(w, frame, packet, &cut, route);
    return LBFWD_DROP_NONE;
}

/* A packet of its own: its checksum may be left out, no more. */
static inline enum lbfwd_drop emit_packet(struct lbfwd_worker *w, const struct lbfwd_frame *frame,
                                          const struct lbfwd_packet *packet,
                                          struct lbfwd_route *route, uint32_t mtu)
{
    uint32_t length = packet->ip_length, header;
    enum lbfwd_drop reason = LBFWD_DROP_NONE;
    uint8_t *out;

    if (UNLIKELY(length > mtu))
        return emit_too_big(w, frame, packet, route, mtu);
    out = claim_or_flush(w, route->tx, &reason);
    if (UNLIKELY(!out))
        return reason;
    header = write_outer(out, &route->wrap, length, &w->next_identification);
    memcpy(out + header, packet->ip, length);
    complete_checksum(out + header, frame, packet);
    commit_wrapped(route, header, length);
    return LBFWD_DROP_NONE;
}

/* Segments that are too big but may be fragmented: each is finished aside, then is a packet. */
static inline void emit_large_segments(struct lbfwd_worker *w, const struct lbfwd_frame *frame,
                                       const struct lbfwd_packet *packet,
                                       const struct lbfwd_cut *cut, struct lbfwd_route *route,
                                       uint32_t mtu)
{
    const struct lbfwd_frame finished = {.data = frame->data, .packet_type = frame->packet_type,
                                         .rx = frame->rx};
    struct lbfwd_packet segment = *packet;

    segment.ip = w->segment;
    ADD_COUNT(w->slot->seen, cut->parts - 1);
    for (uint32_t n = 0; n < cut->parts; n++) {
        enum lbfwd_drop reason;
        segment.ip_length = write_segment(w->segment, packet, cut, n);
        reason = emit_packet(w, &finished, &segment, route, mtu);
        if (reason)
            tx_count_drop(w->counters, reason, 1);
    }
}

static inline enum lbfwd_drop emit_segments(struct lbfwd_worker *w, const struct lbfwd_frame *frame,
                                            const struct lbfwd_packet *packet,
                                            struct lbfwd_route *route, uint32_t mtu)
{
    struct lbfwd_cut cut;
    enum lbfwd_drop reason = plan_cut(frame, packet, &cut);

    if (reason)
        return reason;
    if (cut.headers + (cut.parts > 1 ? cut.size : cut.payload) <= mtu)
        emit_parts(w, frame, packet, &cut, route);
    else if (may_split(packet))
        emit_large_segments(w, frame, packet, &cut, route, mtu);
    else
        return answer_too_big(w, frame, packet, mtu);
    return LBFWD_DROP_NONE;
}

static inline enum lbfwd_drop emit(struct lbfwd_worker *w, const struct lbfwd_frame *frame,
                                   const struct lbfwd_packet *packet, struct lbfwd_route *route)
{
    uint32_t room = tx_capacity(route->tx) - route->wrap.path->header_len;
    uint32_t mtu = inner_mtu(route->wrap.path);

    mtu = mtu < room ? mtu : room; /* the ring's slots may be older than the interface's MTU */
    if (UNLIKELY(is_super_frame(frame)))
        return emit_segments(w, frame, packet, route, mtu);
    if (UNLIKELY(!offload_is_sane(frame, packet)))
        return LBFWD_DROP_BAD_OFFLOAD;
    return emit_packet(w, frame, packet, route, mtu);
}

#endif
