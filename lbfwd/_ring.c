/* The packet path, from ring to ring: what happens to a packet reads here as sentences. The steps
 * live in the headers, one noun each; what else Python calls is in _setup.c. */
#define _GNU_SOURCE
#include "_choose.h"
#include "_emit.h"
#include "_explain.h"
#include "_identify.h"
#include "_live.h"
#include "_wait.h"

#define TURN_BURSTS 1024     /* then Python may look at signals */
#define WAIT_BURSTS 64       /* so many does a wait count for: of up to 0.1 s, 16 make a turn */
#define SWEEP_SECONDS 1800   /* within this every flow table entry is looked at */

/* ---- what a packet may need besides ---- */

/* To the backend that the job names, by the way that its hash has. */
RARE enum lbfwd_drop send_by_hash(struct lbfwd_worker *w, struct lbfwd_job *job)
{
    job->path = choose_path(&w->view, job->backend, job->hash);
    return job->path ? emit(w, job) : LBFWD_DROP_NO_NEXT_HOP;
}

static void forward_frames(struct lbfwd_worker *w, struct lbfwd_frame *frames, uint32_t n);

/* The datagram's other fragments follow this one; those that came before it do so now. */
static void lead(struct lbfwd_worker *w, const struct lbfwd_job *job)
{
    uint64_t key = fragment_key(&job->packet, &w->view.seed);
    struct lbfwd_fragments *fragments = w->fragments;

    *fragment_place(fragments, key) = (struct lbfwd_fragment_route){
        .key = key, .affinity_hash = job->hash, .since_ms = w->now_ms,
        .service = job->counter, .backend = job->backend,
        .incarnation = w->view.backends[job->backend].incarnation};
    for (uint32_t i = 0; i < fragments->count; i++) {
        uint32_t at = (fragments->oldest + i) % HELD_MOST;
        struct lbfwd_frame frame;
        if (LIKELY(fragments->held_keys[at] != key))
            continue;
        fragments->held_keys[at] = 0;
        frame = held_frame(&fragments->held[at]);
        forward_frames(w, &frame, 1);
    }
}

/* A later fragment goes where its datagram's first went, or waits for that. */
static enum lbfwd_drop follow(struct lbfwd_worker *w, struct lbfwd_job *job)
{
    const struct lbfwd_frame *frame = job->frame;
    uint64_t key = fragment_key(&job->packet, &w->view.seed);
    const struct lbfwd_fragment_route *first = fragment_find(w->fragments, key, w->now_ms);

    if (!first) {
        if (frame->length > HELD_BYTES)
            return LBFWD_DROP_FRAGMENT_NO_ROOM;
        if (fragment_hold(w->fragments, key, frame, w->now_ms))
            tx_count_drop(w->counters, LBFWD_DROP_FRAGMENT_NO_ROOM, 1);
        count_event(w, LBFWD_EVENT_FRAGMENT_HELD);
        return LBFWD_DROP_NONE;
    }
    if (first->backend >= w->view.snapshot->backends ||
        w->view.backends[first->backend].incarnation != first->incarnation)
        return LBFWD_DROP_FRAGMENT_UNMATCHED;
    job->counter = first->service;
    job->backend = first->backend;
    job->hash = first->affinity_hash;
    return send_by_hash(w, job);
}

/* Echo is answered here, or by the backend that the sender's address has at the VIP's first
 * service, or by nobody. */
static enum lbfwd_drop serve_echo(struct lbfwd_worker *w, struct lbfwd_job *job)
{
    struct lbfwd_packet *packet = &job->packet;
    const struct lbfwd_vip *vip =
        probe_vip(&w->view, vip_of(packet, packet->family), packet->family);
    const struct lbfwd_service *service;

    if (w->view.snapshot->echo == LBFWD_ECHO_REPLY)
        return answer_echo(w, job->frame, packet);
    service = probe_service(&w->view, vip->id, vip->echo_protocol, vip->echo_port);
    if (w->view.snapshot->echo == LBFWD_ECHO_DROP || !service)
        return LBFWD_DROP_ECHO_REFUSED;
    begin_key(packet);
    end_key(packet, 0, 0); /* neither ports nor protocol: the key of source affinity */
    job->counter = service->counter;
    job->hash = flow_hash(packet->key, key_words(packet->family), &w->view.seed);
    job->backend = maglev_backend(&w->view, service, job->hash);
    return job->backend < LBFWD_MAX_BACKENDS ? send_by_hash(w, job) : LBFWD_DROP_NO_BACKEND;
}

/* ---- a burst, step by step ---- */

/* All that has no backend, no next hop, or more to it than being sent. */
RARE enum lbfwd_drop finish_unusual(struct lbfwd_worker *w, struct lbfwd_job *job)
{
    enum lbfwd_drop reason = job->reason;

    if (reason)
        return reason;
    if (is_for_peer(job))
        return emit(w, job);
    if (job->packet.kind == LBFWD_KIND_ECHO_REQUEST)
        return serve_echo(w, job);
    if (job->packet.kind == LBFWD_KIND_LATER_FRAGMENT)
        return follow(w, job);
    if (job->backend >= LBFWD_MAX_BACKENDS)
        return answer_empty(w, job->frame, &job->packet, job->service);
    reason = send_by_hash(w, job);
    if (job->packet.fragmented)
        lead(w, job);
    return reason;
}

/* Out of the node; the reason when it stays. One that was found before left it without a path. */
STEP enum lbfwd_drop finish(struct lbfwd_worker *w, struct lbfwd_job *job)
{
    if (UNLIKELY(!job->path || job->packet.fragmented))
        return finish_unusual(w, job);
    return emit(w, job);
}

/* Where the packet ended: in a TX ring, or under the reason that is returned. */
STEP enum lbfwd_drop finish_and_count(struct lbfwd_worker *w, struct lbfwd_job *job)
{
    enum lbfwd_drop reason = finish(w, job);

    if (UNLIKELY(reason))
        tx_count_drop(w->counters, reason, 1);
    return reason;
}

static void finish_all(struct lbfwd_worker *w, struct lbfwd_job *jobs, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        finish_and_count(w, &jobs[i]);
}

/* Each step for all packets before the next: what a step asks for, the next one finds in the cache. */
static void forward_jobs(struct lbfwd_worker *w, struct lbfwd_job *jobs, uint32_t n)
{
    identify_all(w, jobs, n);
    choose_all(w, jobs, n);
    finish_all(w, jobs, n);
}

static void forward_frames(struct lbfwd_worker *w, struct lbfwd_frame *frames, uint32_t n)
{
    struct lbfwd_job jobs[LBFWD_BURST];

    for (uint32_t i = 0; i < n; i++)
        jobs[i].frame = &frames[i];
    forward_jobs(w, jobs, n);
}

/* The marked packet goes by itself, as all do; how it went is written down. */
static void forward_marked(struct lbfwd_worker *w, struct lbfwd_frame *frame,
                           const uint8_t *mark)
{
    struct lbfwd_job job = {.frame = frame, .counter = LBFWD_MAX_SERVICES,
                            .backend = LBFWD_MAX_BACKENDS};
    uint64_t before = count_table_choices(w->counters);

    identify_all(w, &job, 1);
    choose_all(w, &job, 1);
    job.reason = finish_and_count(w, &job);
    live_write(w, &job, mark, before == count_table_choices(w->counters));
}

/* In the order in which they came. */
RARE void forward_watched(struct lbfwd_worker *w, struct lbfwd_frame *frames, uint32_t n)
{
    const uint8_t *mark;
    uint32_t done = 0;

    for (uint32_t i = 0; i < n; i++)
        if (UNLIKELY(mark = find_mark(w, &frames[i]))) {
            forward_frames(w, frames + done, i - done);
            forward_marked(w, &frames[i], mark);
            done = i + 1;
        }
    forward_frames(w, frames + done, n - done);
}

STEP void forward_received(struct lbfwd_worker *w, struct lbfwd_frame *frames, uint32_t n)
{
    if (UNLIKELY(is_armed(w)))
        forward_watched(w, frames, n);
    else
        forward_frames(w, frames, n);
}

/* ---- bursts ---- */

/* What time does: fragments that waited in vain are dropped, old flows make room. */
static void tick(struct lbfwd_worker *w)
{
    uint64_t now_s = w->now_ms / 1000;
    struct lbfwd_flow_context context = flow_context(w);
    int waited = fragment_expire(w->fragments, w->now_ms);

    if (waited)
        tx_count_drop(w->counters, LBFWD_DROP_FRAGMENT_UNMATCHED, (uint64_t)waited);
    if (now_s == w->swept_s || !w->published)
        return;
    w->swept_s = now_s;
    flow_sweep(&w->flows, &context, w->flows.buckets / SWEEP_SECONDS + 1);
}

static uint32_t forward_burst(struct lbfwd_worker *w, uint32_t ring)
{
    struct lbfwd_rx *rx = &w->rx[ring];
    struct lbfwd_frame frames[LBFWD_BURST];
    uint32_t n = rx_take(rx, frames, LBFWD_BURST);

    if (!n)
        return 0;
    ADD_COUNT(w->slot->seen, n);
    ADD_COUNT(w->slot->frames, n);
    ADD_COUNT(w->slot->bursts, 1);
    read_clock(w);
    for (uint32_t i = 0; i < n; i++)
        frames[i].rx = (uint8_t)ring;
    forward_received(w, frames, n);
    flush_all(w);
    rx_give_back(rx);
    return n;
}

static inline uint32_t forward_round(struct lbfwd_worker *w)
{
    uint32_t n = 0;

    ADD_COUNT(w->slot->heartbeat, 1);
    take_up(w);
    for (uint32_t i = 0; i < LBFWD_MAX_RX; i++)
        if (w->rx[i].map)
            n += forward_burst(w, i);
    tick(w);
    return n;
}

/* ---- turns ---- */

/* Looks at the rings without sleeping for as long as busy polling allows. */
static uint32_t spin(struct lbfwd_worker *w, uint32_t busy_poll_us)
{
    uint64_t end = now_ns() + (uint64_t)busy_poll_us * 1000;
    uint32_t n = 0;

    while (!n && now_ns() < end)
        n = forward_round(w);
    return n;
}

static enum lbfwd_wake forward_turn(struct lbfwd_worker *w, int wake_fd, uint32_t busy_poll_us)
{
    for (uint32_t turn = 0; turn < TURN_BURSTS; turn++) {
        enum lbfwd_wake wake;

        if (forward_round(w))
            continue;
        flush_all(w);
        if (busy_poll_us && spin(w, busy_poll_us))
            continue;
        wake = wait_for_work(w, wake_fd);
        if (wake != LBFWD_WAKE_TURN)
            return wake;
        turn += WAIT_BURSTS;
    }
    return LBFWD_WAKE_TURN;
}

/* ---- what Python calls ---- */

int lbfwd_worker_run(struct lbfwd_worker *w, int wake_fd, uint32_t busy_poll_us)
{
    enum lbfwd_wake wake;

    begin_references(w);
    wake = forward_turn(w, wake_fd, busy_poll_us);
    end_references(w);
    return wake;
}

int lbfwd_worker_remove_rx(struct lbfwd_worker *w, uint32_t index)
{
    if (index >= LBFWD_MAX_RX || !w->rx[index].map)
        return -ENOENT;
    begin_references(w);
    for (uint64_t most = w->rx[index].map_bytes / 64; most && forward_burst(w, index); most--)
        ADD_COUNT(w->slot->heartbeat, 1);
    end_references(w);
    rx_detach(&w->rx[index]);
    return 0;
}

int lbfwd_worker_forward(struct lbfwd_worker *w, const uint8_t *frame, uint32_t length,
                         uint64_t now_ms)
{
    struct lbfwd_frame received;

    if (length < VNET_BYTES)
        return -EINVAL;
    received = frame_in_memory(frame, length);
    begin_references(w);
    w->now_ms = now_ms;
    ADD_COUNT(w->slot->seen, 1);
    ADD_COUNT(w->slot->frames, 1);
    tick(w);
    forward_received(w, &received, 1);
    end_references(w);
    return 0;
}

int lbfwd_worker_explain(struct lbfwd_worker *w, const uint8_t *frame, uint32_t length,
                         uint64_t now_ms, struct lbfwd_explanation *out)
{
    struct lbfwd_frame received;
    struct lbfwd_job job = {.frame = &received, .backend = LBFWD_MAX_BACKENDS};

    if (length < VNET_BYTES)
        return -EINVAL;
    received = frame_in_memory(frame, length);
    begin_references(w);
    w->now_ms = now_ms;
    explain_begin(w, out);
    identify_all(w, &job, 1);
    if (job.service)
        explain_flow(w, &job, out);
    choose_all(w, &job, 1);
    explain_end(w, &job, finish(w, &job), out);
    end_references(w);
    return 0;
}
