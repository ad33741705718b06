/* The packet path, from ring to ring: what happens to a packet reads here as sentences. The steps
 * live in the headers, one noun each; what else Python calls is in _setup.c. */
#define _GNU_SOURCE
#include "_segment.h"
#include "_worker.h"

#define IDLE_WAIT_MS 100     /* the heartbeat moves at least this often */
#define RETRY_WAIT_MS 1      /* frames wait for the kernel */
#define TURN_BURSTS 1024     /* then Python may look at signals */

/* ---- the packet path ---- */

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

/* What is known about a packet when it is to be emitted. */
struct lbfwd_route {
    const struct lbfwd_path *path;
    struct lbfwd_tx *tx;
    struct lbfwd_owner owner;
};

static inline int fits(const struct lbfwd_route *route, uint32_t ip_length)
{
    uint32_t outer = ip_length + overhead_of(route->path);
    return outer <= route->path->mtu;
}

static inline enum lbfwd_drop emit_packet(struct lbfwd_worker *w, const struct lbfwd_frame *frame,
                                          const struct lbfwd_packet *packet,
                                          struct lbfwd_route *route)
{
    enum lbfwd_drop reason = LBFWD_DROP_NONE;
    uint32_t length = packet->ip_length, header;
    uint8_t *out;

    if (UNLIKELY(!fits(route, length)))
        return LBFWD_DROP_TOO_BIG;
    out = claim_or_flush(w, route->tx, &reason);
    if (UNLIKELY(!out))
        return reason;
    if (UNLIKELY(length + route->path->header_len > tx_capacity(route->tx)))
        return LBFWD_DROP_TOO_BIG;
    header = write_outer(out, route->path, packet, length);
    memcpy(out + header, packet->ip, length);
    complete_checksum(out + header, frame, packet);
    route->owner.bytes = length;
    tx_commit(route->tx, header + length, route->owner);
    return LBFWD_DROP_NONE;
}

/* Every segment ends in a counter of its own: those that find no room do not stop the others. */
static inline enum lbfwd_drop emit_segments(struct lbfwd_worker *w, const struct lbfwd_packet *packet,
                                            const struct lbfwd_cut *cut, struct lbfwd_route *route)
{
    uint32_t largest = cut->headers + (cut->segments > 1 ? cut->size : cut->payload);

    if (!fits(route, largest) || largest + route->path->header_len > tx_capacity(route->tx))
        return LBFWD_DROP_TOO_BIG;
    ADD_COUNT(w->slot->seen, cut->segments - 1);
    for (uint32_t n = 0; n < cut->segments; n++) {
        enum lbfwd_drop reason = LBFWD_DROP_NONE;
        uint8_t *out = claim_or_flush(w, route->tx, &reason);
        uint32_t left = cut->payload - n * cut->size, header, length;

        if (UNLIKELY(!out)) {
            tx_count_drop(w->counters, reason, 1);
            continue;
        }
        length = cut->headers + (left < cut->size ? left : cut->size);
        header = write_outer(out, route->path, packet, length);
        write_segment(out + header, packet, cut, n);
        route->owner.bytes = length;
        tx_commit(route->tx, header + length, route->owner);
    }
    return LBFWD_DROP_NONE;
}

/* Who serves the packet: flow hash, Maglev table, next hop. */
static inline enum lbfwd_drop route_packet(struct lbfwd_worker *w,
                                           const struct lbfwd_service *service,
                                           struct lbfwd_packet *packet, struct lbfwd_route *route)
{
    uint64_t hash = affinity_hash(&w->view, service, packet);
    uint32_t backend = maglev_backend(&w->view, service, hash);

    if (UNLIKELY(backend >= LBFWD_MAX_BACKENDS))
        return LBFWD_DROP_NO_BACKEND;
    route->path = choose_path(&w->view, backend, hash);
    if (UNLIKELY(!route->path))
        return LBFWD_DROP_NO_NEXT_HOP;
    route->tx = &w->tx[route->path->tx];
    route->owner.service = service->counter;
    route->owner.backend = backend;
    return LBFWD_DROP_NONE;
}

/* parse, find the service, pick the backend, wrap: the reason when that ends early. */
static inline enum lbfwd_drop forward(struct lbfwd_worker *w, const struct lbfwd_frame *frame)
{
    struct lbfwd_packet packet;
    struct lbfwd_cursor cursor;
    struct lbfwd_route route;
    const struct lbfwd_service *service;
    const struct lbfwd_vip *vip;
    struct lbfwd_cut cut;
    enum lbfwd_drop reason;

    if ((reason = parse_ethernet(frame, &cursor, &packet)))
        return reason;
    if ((reason = parse_ip(&cursor, &packet)))
        return reason;
    if (UNLIKELY(!w->published || !(vip = find_vip(&w->view, &packet))))
        return LBFWD_DROP_NO_VIP;
    if ((reason = parse_transport(&packet)))
        return reason;
    if (UNLIKELY(!(service = find_service(&w->view, vip, &packet))))
        return LBFWD_DROP_NO_SERVICE;
    if ((reason = route_packet(w, service, &packet, &route)))
        return reason;
    if (UNLIKELY(is_super_frame(frame))) {
        if ((reason = plan_cut(frame, &packet, &cut)))
            return reason;
        return emit_segments(w, &packet, &cut, &route);
    }
    if (UNLIKELY(!offload_is_sane(frame, &packet)))
        return LBFWD_DROP_BAD_OFFLOAD;
    return emit_packet(w, frame, &packet, &route);
}

static inline void forward_and_count(struct lbfwd_worker *w, const struct lbfwd_frame *frame)
{
    enum lbfwd_drop reason = forward(w, frame);
    if (UNLIKELY(reason))
        tx_count_drop(w->counters, reason, 1);
}

/* One burst of one ring; returns how many frames it had. */
static uint32_t forward_burst(struct lbfwd_worker *w, struct lbfwd_rx *rx)
{
    struct lbfwd_frame frames[LBFWD_BURST];
    uint32_t n = rx_take(rx, frames, LBFWD_BURST);

    if (!n)
        return 0;
    ADD_COUNT(w->slot->seen, n);
    ADD_COUNT(w->slot->frames, n);
    ADD_COUNT(w->slot->bursts, 1);
    for (uint32_t i = 0; i < n; i++)
        forward_and_count(w, &frames[i]);
    flush_all(w);
    rx_give_back(rx);
    return n;
}

/* ---- waiting ---- */

static inline uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* An interface that went down leaves an error at the socket; unread, it would wake us for ever. */
static void clear_error(int fd)
{
    int error;
    socklen_t length = sizeof error;
    (void)!getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
}

/* Sleeps until there is something to do. While it sleeps the worker refers to no generation. */
static enum lbfwd_wake wait_for_work(struct lbfwd_worker *w, int wake_fd)
{
    struct pollfd fds[LBFWD_MAX_RX + 1] = {{.fd = wake_fd, .events = POLLIN}};
    nfds_t count = 1;
    int ready;

    for (uint32_t i = 0; i < LBFWD_MAX_RX; i++)
        if (w->rx[i].map)
            fds[count++] = (struct pollfd){.fd = w->rx[i].fd, .events = POLLIN};
    ADD_COUNT(w->slot->waits, 1);
    end_references(w);
    ready = poll(fds, count, w->pending ? RETRY_WAIT_MS : IDLE_WAIT_MS);
    begin_references(w);
    for (nfds_t i = 1; ready > 0 && i < count; i++)
        if (fds[i].revents & POLLERR)
            clear_error(fds[i].fd);
    if (ready < 0)
        return LBFWD_WAKE_SIGNAL;
    if (fds[0].revents)
        return LBFWD_WAKE_CONTROL;
    synchronize_tx(w);
    return ready ? LBFWD_WAKE_TURN : LBFWD_WAKE_TIMEOUT;
}

static inline uint32_t forward_round(struct lbfwd_worker *w)
{
    uint32_t n = 0;

    ADD_COUNT(w->slot->heartbeat, 1);
    take_up(w);
    for (uint32_t i = 0; i < LBFWD_MAX_RX; i++)
        if (w->rx[i].map)
            n += forward_burst(w, &w->rx[i]);
    return n;
}

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
    }
    return LBFWD_WAKE_TURN;
}

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
    for (uint64_t most = w->rx[index].map_bytes / 64; most && forward_burst(w, &w->rx[index]); most--)
        ADD_COUNT(w->slot->heartbeat, 1);
    end_references(w);
    rx_detach(&w->rx[index]);
    return 0;
}

int lbfwd_worker_forward(struct lbfwd_worker *w, const uint8_t *frame, uint32_t length)
{
    struct lbfwd_frame received = {.packet_type = PACKET_HOST};

    if (length < VNET_BYTES)
        return -EINVAL;
    memcpy(&received.offload, frame, VNET_BYTES);
    received.data = frame + VNET_BYTES;
    received.length = received.wire_length = length - VNET_BYTES;
    begin_references(w);
    ADD_COUNT(w->slot->seen, 1);
    ADD_COUNT(w->slot->frames, 1);
    forward_and_count(w, &received);
    end_references(w);
    return 0;
}
