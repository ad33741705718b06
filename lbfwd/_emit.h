/* From a packet and its path to frames in a TX ring: wrapped, cut, split, or answered. */
#ifndef LBFWD_EMIT_H
#define LBFWD_EMIT_H

#include "_icmp.h"
#include "_job.h"
#include "_split.h"
#include "_worker.h"

#define COPY_STEP 16
#define COPY_MOST 128

_Static_assert(COPY_STEP <= IPV4_BYTES, "every packet is that long");

/* How a packet goes out, and whom it counts for. */
struct lbfwd_route {
    struct lbfwd_wrap wrap;
    struct lbfwd_tx *tx;
    uint32_t service;         /* counters */
    uint32_t backend;
};

/* A free slot of the ring; when it is full, what is pending is sent and it is tried once more. */
RARE struct tpacket3_hdr *flush_and_claim(struct lbfwd_worker *w, struct lbfwd_tx *tx,
                                          enum lbfwd_drop *reason)
{
    tx_flush(tx, w->counters, w->slot);
    return tx_claim(tx, reason);
}

STEP struct tpacket3_hdr *claim_or_flush(struct lbfwd_worker *w, struct lbfwd_tx *tx,
                                         enum lbfwd_drop *reason)
{
    struct tpacket3_hdr *slot = tx_claim(tx, reason);
    return LIKELY(slot != NULL) ? slot : flush_and_claim(w, tx, reason);
}

/* A frame in the making that goes back to where the received one came from. */
struct lbfwd_answer {
    struct tpacket3_hdr *slot; /* NULL: no answer */
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
    answer.slot = claim_or_flush(w, answer.tx, &reason);
    if (!answer.slot)
        count_event(w, LBFWD_EVENT_ANSWER_LOST);
    return answer;
}

static inline void end_answer(struct lbfwd_worker *w, struct lbfwd_answer answer, uint32_t length,
                              enum lbfwd_event event)
{
    tx_commit(answer.tx, answer.slot, length, (struct lbfwd_owner){.service = OWNER_NODE});
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
    if (answer.slot)
        end_answer(w, answer,
                   write_too_big(tx_frame(answer.slot), frame, packet, mtu > least ? mtu : least),
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
    if (!answer.slot)
        return LBFWD_DROP_NO_BACKEND;
    if (tcp)
        end_answer(w, answer, write_reset(tx_frame(answer.slot), frame, packet),
                   LBFWD_EVENT_RESET_SENT);
    else
        end_answer(w, answer, write_port_unreachable(tx_frame(answer.slot), frame, packet),
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
    answer.slot = claim_or_flush(w, answer.tx, &reason);
    if (!answer.slot)
        return reason;
    if (packet->ip_length + ETHERNET_BYTES + IPV6_BYTES > tx_capacity(answer.tx))
        return LBFWD_DROP_TOO_BIG;
    tx_commit(answer.tx, answer.slot, write_echo_reply(tx_frame(answer.slot), frame, packet),
              (struct lbfwd_owner){.service = OWNER_NODE});
    return LBFWD_DROP_ECHO_ANSWERED;
}

/* Writes the outer header into the slot; returns where the packet begins. */
STEP uint8_t *wrap(struct lbfwd_worker *w, struct tpacket3_hdr *slot, const struct lbfwd_route *route,
                   uint32_t length)
{
    uint8_t *out = tx_frame(slot);
    return out + write_outer(out, &route->wrap, length, &w->next_identification);
}

/* length: of the packet behind the outer header, at `packet`. */
STEP void commit_wrapped(const struct lbfwd_route *route, struct tpacket3_hdr *slot,
                         const uint8_t *packet, uint32_t length)
{
    struct lbfwd_owner owner = {route->service, route->backend, length};
    tx_commit(route->tx, slot, (uint32_t)(packet - tx_frame(slot)) + length, owner);
}

/* Several packets from one, the segments of a super-frame or the fragments of a packet: each ends
 * in a counter of its own, and those that find no room do not stop the others. */
static inline void emit_parts(struct lbfwd_worker *w, const struct lbfwd_frame *frame,
                              const struct lbfwd_packet *packet, const struct lbfwd_cut *cut,
                              const struct lbfwd_route *route)
{
    ADD_COUNT(w->slot->seen, cut->parts - 1);
    for (uint32_t n = 0; n < cut->parts; n++) {
        enum lbfwd_drop reason = LBFWD_DROP_NONE;
        struct tpacket3_hdr *slot = claim_or_flush(w, route->tx, &reason);
        uint32_t left = cut->payload - n * cut->size, length;
        uint8_t *out;

        if (UNLIKELY(!slot)) {
            tx_count_drop(w->counters, reason, 1);
            continue;
        }
        length = cut->headers + (left < cut->size ? left : cut->size);
        out = wrap(w, slot, route, length);
        if (is_super_frame(frame))
            write_segment(out, packet, cut, n);
        else
            write_fragment(out, frame, packet, n * cut->size, cut->size);
        commit_wrapped(route, slot, out, length);
    }
}

/* Too big for the tunnel: split where the sender allows it, else the sender is told. */
static inline enum lbfwd_drop emit_too_big(struct lbfwd_worker *w, const struct lbfwd_frame *frame,
                                           const struct lbfwd_packet *packet,
                                           const struct lbfwd_route *route, uint32_t mtu)
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

/* Short packets, which most are, in steps of a register: a call costs more. None is shorter than
 * one (an IP header is longer), so the last step may overlap the one before. */
static inline void copy_packet(uint8_t *to, const uint8_t *from, uint32_t length)
{
    if (UNLIKELY(length > COPY_MOST)) {
        memcpy(to, from, length);
        return;
    }
    for (uint32_t at = 0; at + COPY_STEP < length; at += COPY_STEP)
        memcpy(to + at, from + at, COPY_STEP);
    memcpy(to + length - COPY_STEP, from + length - COPY_STEP, COPY_STEP);
}

/* A packet that fits goes out as it is; a checksum that it lacks is completed. */
STEP enum lbfwd_drop emit_whole(struct lbfwd_worker *w, const struct lbfwd_frame *unfinished,
                                const struct lbfwd_packet *packet, const struct lbfwd_route *route)
{
    uint32_t length = packet->ip_length;
    enum lbfwd_drop reason;
    struct tpacket3_hdr *slot = claim_or_flush(w, route->tx, &reason);
    uint8_t *out;

    if (UNLIKELY(!slot))
        return reason;
    out = wrap(w, slot, route, length);
    copy_packet(out, packet->ip, length);
    if (unfinished)
        complete_checksum(out, unfinished, packet);
    commit_wrapped(route, slot, out, length);
    return LBFWD_DROP_NONE;
}

static inline enum lbfwd_drop emit_packet(struct lbfwd_worker *w, const struct lbfwd_frame *frame,
                                          const struct lbfwd_packet *packet,
                                          const struct lbfwd_route *route, uint32_t mtu)
{
    if (UNLIKELY(packet->ip_length > mtu))
        return emit_too_big(w, frame, packet, route, mtu);
    return emit_whole(w, frame, packet, route);
}

/* Segments that are too big but may be fragmented: each is finished aside, then is a packet. */
static inline void emit_large_segments(struct lbfwd_worker *w, const struct lbfwd_frame *frame,
                                       const struct lbfwd_packet *packet,
                                       const struct lbfwd_cut *cut, const struct lbfwd_route *route,
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
                                            const struct lbfwd_route *route, uint32_t mtu)
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

/* The largest inner packet that the path takes, and the ring's slots: they may be older than the
 * interface's MTU. */
static inline uint32_t largest_packet(const struct lbfwd_route *route)
{
    uint32_t room = tx_capacity(route->tx) - route->wrap.path->header_len;
    uint32_t mtu = inner_mtu(route->wrap.path);
    return mtu < room ? mtu : room;
}

STEP struct lbfwd_route route_of(struct lbfwd_worker *w, const struct lbfwd_job *job)
{
    const struct lbfwd_path *path = job->path;
    return (struct lbfwd_route){
        .wrap = {path, job->hash, job->packet.tos, job->packet.ethertype_be16},
        .tx = &w->tx[path->tx], .service = job->counter, .backend = job->backend};
}

/* What is not whole, not finished or too big. */
RARE enum lbfwd_drop emit_unusual(struct lbfwd_worker *w, const struct lbfwd_job *job)
{
    struct lbfwd_route route = route_of(w, job);
    uint32_t mtu = largest_packet(&route);

    if (is_super_frame(job->frame))
        return emit_segments(w, job->frame, &job->packet, &route, mtu);
    if (!offload_is_sane(job->frame, &job->packet))
        return LBFWD_DROP_BAD_OFFLOAD;
    return emit_packet(w, job->frame, &job->packet, &route, mtu);
}

STEP enum lbfwd_drop emit(struct lbfwd_worker *w, const struct lbfwd_job *job)
{
    const struct lbfwd_path *path = job->path;
    struct lbfwd_route route = route_of(w, job);
    uint32_t wrapped = path->header_len + job->packet.ip_length;

    if (UNLIKELY(is_unfinished(job->frame) || wrapped > tx_capacity(route.tx) ||
                 wrapped > (uint32_t)ETHERNET_BYTES + path->mtu))
        return emit_unusual(w, job);
    return emit_whole(w, NULL, &job->packet, &route);
}

#endif
