/* Marked packets: they are found on the way that all packets go, and how they went is written down
 * for the supervisor (lbfwd trace --live). docs/trace.md says what such a packet is. */
#ifndef LBFWD_LIVE_H
#define LBFWD_LIVE_H

#include "_job.h"
#include "_worker.h"

/* The payload of a whole packet, TCP, UDP or ICMP, that is exactly as long as a mark; or NULL. */
static inline const uint8_t *payload_like_mark(const struct lbfwd_packet *packet)
{
    struct lbfwd_cursor cursor = {packet->ip + packet->l4_offset,
                                  packet->ip_length - packet->l4_offset};
    int tcp = packet->protocol == IPPROTO_TCP;
    const uint8_t *header = take(&cursor, tcp ? TCP_BYTES : UDP_BYTES);
    uint32_t tcp_bytes;

    if (!header || packet->fragmented)
        return NULL;
    if (!tcp && packet->protocol != IPPROTO_UDP && packet->protocol != IPPROTO_ICMP &&
        packet->protocol != IPPROTO_ICMPV6)
        return NULL;
    tcp_bytes = tcp ? (header[12] >> 4) * 4u : TCP_BYTES;
    if (tcp_bytes < TCP_BYTES || !take(&cursor, tcp_bytes - TCP_BYTES))
        return NULL;
    return cursor.left == LBFWD_MARK_BYTES ? cursor.at : NULL;
}

/* The same of a frame. What is broken before its payload goes on to be dropped by name. */
static inline const uint8_t *payload_of_frame(const struct lbfwd_frame *frame)
{
    struct lbfwd_packet packet;
    enum lbfwd_drop reason = parse_ip(frame, &packet);

    if (!reason && packet.family == 6)
        reason = skip_extensions(&packet);
    return reason ? NULL : payload_like_mark(&packet);
}

/* Whether workers are told to look for marks. */
static inline int is_armed(const struct lbfwd_worker *w)
{
    uint64_t until_ms = READ_SHARED(w->control->live_until_ms);
    return UNLIKELY(until_ms) && w->now_ms < until_ms;
}

/* The frame's mark, when it bears the token that is looked for; or NULL. A token that is being
 * replaced is nobody's. */
static inline const uint8_t *find_mark(const struct lbfwd_worker *w, const struct lbfwd_frame *frame)
{
    const uint8_t *mark = payload_of_frame(frame);

    if (mark && load_u64(mark) == LBFWD_MARK_MAGIC &&
        load_u64(mark + 8) == READ_SHARED(w->control->live_token[0]) &&
        load_u64(mark + 16) == READ_SHARED(w->control->live_token[1]))
        return mark;
    return NULL;
}

/* How often the Maglev table has decided, and not an entry of a flow table. */
static inline uint64_t count_table_choices(const struct lbfwd_counters *counters)
{
    return counters->events[LBFWD_EVENT_FLOW_NEW] + counters->events[LBFWD_EVENT_FLOW_REDIRECTED];
}

/* Where the supervisor finds it: a sequence lock with one writer. A worker that died while it wrote
 * leaves an odd number, and its successor goes on from there. `unchosen`: the Maglev table was not
 * asked. */
static inline void live_write(struct lbfwd_worker *w, const struct lbfwd_job *job,
                              const uint8_t *mark, int unchosen)
{
    int served = job->backend < LBFWD_MAX_BACKENDS;
    struct lbfwd_live *live = &w->slot->live;
    uint64_t sequence = live->sequence | 1;

    __atomic_store_n(&live->sequence, sequence, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    *live = (struct lbfwd_live){
        .sequence = sequence, .token = {load_u64(mark + 8), load_u64(mark + 16)},
        .generation = w->published ? generation_of(w->published) : 0, .at_ms = w->now_ms,
        .service = job->counter, .backend = job->backend, .reason = job->reason,
        .incarnation = served ? w->view.backends[job->backend].incarnation : 0,
        .rx = job->frame->rx, .tx = job->path ? job->path->tx : LBFWD_MAX_TX,
        .known = served && job->service && unchosen};
    WRITE_SHARED(live->sequence, sequence + 1);
}

/* The supervisor's half of both. */
static inline void live_arm(struct lbfwd_control *control, const uint8_t *token, uint64_t until_ms)
{
    WRITE_SHARED(control->live_until_ms, 0);
    WRITE_SHARED(control->live_token[0], load_u64(token));
    WRITE_SHARED(control->live_token[1], load_u64(token + 8));
    WRITE_SHARED(control->live_until_ms, until_ms);
}

static inline int live_read(const struct lbfwd_live *live, struct lbfwd_live *out)
{
    uint64_t before = READ_SHARED(live->sequence), after;

    if (!before)
        return -ENOENT;
    *out = *live;
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    after = __atomic_load_n(&live->sequence, __ATOMIC_RELAXED);
    return before & 1 || before != after ? -EAGAIN : 0;
}

#endif
