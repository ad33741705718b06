/* The packet path, from ring to ring, and the functions that Python calls. The steps live in the
 * headers, one noun each; here they are put together. */
#define _GNU_SOURCE
#include "_contract.h"

#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "_decap.h"
#include "_maglev.h"
#include "_segment.h"
#include "_socket.h"
#include "_worker.h"

#define IDLE_WAIT_MS 100     /* the heartbeat moves at least this often */
#define RETRY_WAIT_MS 1      /* frames wait for the kernel */
#define TURN_BURSTS 1024     /* then Python may look at signals */

_Static_assert(sizeof(struct lbfwd_path) == 64, "a path is one cache line");
_Static_assert(sizeof(struct lbfwd_vip) == 32, "shared layout");
_Static_assert(sizeof(struct lbfwd_service) == 40, "shared layout");
_Static_assert(sizeof(struct lbfwd_slot) % 64 == 0, "slots do not share cache lines");
_Static_assert(sizeof(struct lbfwd_counters) % 65536 == 0, "a worker maps its block");
_Static_assert(LBFWD_DROP_COUNT <= 64, "drops[64]");

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

/* ---- a worker's life ---- */

int lbfwd_worker_new(struct lbfwd_worker **out, uint32_t slot, int control_fd, int arena_fd,
                     int counters_fd)
{
    struct lbfwd_worker *w;
    int error;

    if (slot >= LBFWD_MAX_WORKERS)
        return -EINVAL;
    w = calloc(1, sizeof *w);
    if (!w)
        return -ENOMEM;
    w->arena_fd = arena_fd;
    for (uint32_t i = 0; i < LBFWD_MAX_TX; i++)
        w->tx[i].fd = -1;
    error = map_control(w, control_fd);
    if (!error && !file_holds(counters_fd, (slot + 1) * sizeof *w->counters))
        error = -EBADMSG;
    if (!error) {
        w->slot = &w->control->slots[slot];
        w->counters = mmap(NULL, sizeof *w->counters, PROT_READ | PROT_WRITE, MAP_SHARED,
                           counters_fd, (off_t)(slot * sizeof *w->counters));
        if (w->counters == MAP_FAILED) {
            w->counters = NULL;
            error = -errno;
        }
    }
    if (error) {
        lbfwd_worker_free(w);
        return error;
    }
    end_references(w); /* whatever the last worker of this slot left there */
    *out = w;
    return 0;
}

void lbfwd_worker_free(struct lbfwd_worker *w)
{
    for (uint32_t i = 0; i < LBFWD_MAX_RX; i++)
        if (w->rx[i].map)
            rx_detach(&w->rx[i]);
    for (uint32_t i = 0; i < LBFWD_MAX_TX; i++)
        if (w->tx[i].map)
            tx_detach(&w->tx[i]);
    if (w->counters)
        munmap(w->counters, sizeof *w->counters);
    if (w->arena)
        munmap((void *)(uintptr_t)w->arena, w->arena_bytes);
    if (w->control)
        munmap(w->control, w->control_bytes);
    free(w);
}

int lbfwd_worker_add_rx(struct lbfwd_worker *w, uint32_t index, int fd,
                        const struct lbfwd_geometry *geometry)
{
    if (index >= LBFWD_MAX_RX)
        return -EINVAL;
    return rx_attach(&w->rx[index], fd, geometry, &w->slot->rx[index]);
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

int lbfwd_worker_add_tx(struct lbfwd_worker *w, uint32_t index, int fd,
                        const struct lbfwd_geometry *geometry)
{
    if (index >= LBFWD_MAX_TX)
        return -EINVAL;
    return tx_attach(&w->tx[index], fd, geometry);
}

int lbfwd_worker_remove_tx(struct lbfwd_worker *w, uint32_t index)
{
    if (index >= LBFWD_MAX_TX || !w->tx[index].map)
        return -ENOENT;
    tx_flush(&w->tx[index], w->counters, w->slot);
    tx_reclaim(&w->tx[index], w->counters, LBFWD_DROP_TX_LINK_DOWN);
    tx_detach(&w->tx[index]);
    return 0;
}

/* Everything seen is in one counter, or was in the last worker's hands when it died. */
int lbfwd_worker_recover(struct lbfwd_worker *w)
{
    uint64_t counted = 0;

    if (!w->slot->seen)
        return 0;
    for (uint32_t i = 0; i < LBFWD_DROP_COUNT; i++)
        counted += w->counters->drops[i];
    for (uint32_t i = 0; i < LBFWD_MAX_SERVICES; i++)
        counted += w->counters->services[i].packets;
    if (w->slot->seen > counted)
        tx_count_drop(w->counters, LBFWD_DROP_WORKER_DIED, w->slot->seen - counted);
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

int lbfwd_worker_sent(struct lbfwd_worker *w, uint32_t index, uint32_t n, const uint8_t **frame,
                      uint32_t *length)
{
    struct tpacket3_hdr *slot;

    if (index >= LBFWD_MAX_TX || !w->tx[index].map || n >= w->tx[index].pending)
        return -ENOENT;
    slot = tx_slot(&w->tx[index], tx_step(&w->tx[index], tx_oldest(&w->tx[index]), n));
    *frame = (uint8_t *)slot + LBFWD_TX_OFFSET + VNET_BYTES;
    *length = slot->tp_len - VNET_BYTES;
    return 0;
}

void lbfwd_worker_sent_clear(struct lbfwd_worker *w, uint32_t index)
{
    struct lbfwd_tx *tx = &w->tx[index];

    for (uint32_t i = 0, at = tx_oldest(tx); i < tx->pending; i++, at = tx_step(tx, at, 1))
        WRITE_SHARED(tx_slot(tx, at)->tp_status, TP_STATUS_AVAILABLE);
    tx_settle(tx, w->counters);
}

int lbfwd_drop_capabilities(void)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct none[2] = {{0, 0, 0}, {0, 0, 0}};

    for (unsigned long capability = 0; capability <= CAP_LAST_CAP; capability++)
        (void)!prctl(PR_CAPBSET_DROP, capability, 0, 0, 0); /* newer or older kernels know others */
    (void)!prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return -errno;
    return syscall(SYS_capset, &header, none) < 0 ? -errno : 0;
}

/* ---- set-up, step by step ---- */

int lbfwd_packet_socket(void)
{
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    return fd < 0 ? -errno : fd;
}

int lbfwd_attach_filter(int fd, const uint64_t *program, uint16_t instructions)
{
    return attach_program(fd, SOL_SOCKET, SO_ATTACH_FILTER, program, instructions);
}

int lbfwd_rx_options(int fd, uint32_t version)
{
    return rx_options(fd, version);
}

int lbfwd_rx_ring(int fd, const struct lbfwd_geometry *geometry)
{
    return set_ring(fd, PACKET_RX_RING, geometry);
}

int lbfwd_bind(int fd, int ifindex, int receive)
{
    return bind_interface(fd, ifindex, receive);
}

int lbfwd_fanout_join(int fd, int group)
{
    return fanout_join(fd, group);
}

int lbfwd_fanout_program(int fd, const uint64_t *program, uint16_t instructions)
{
    return attach_program(fd, SOL_PACKET, PACKET_FANOUT_DATA, program, instructions);
}

int lbfwd_tx_options(int fd, int qdisc_bypass)
{
    int error = set_packet_option(fd, PACKET_VERSION, TPACKET_V3);
    if (!error)
        error = set_packet_option(fd, PACKET_VNET_HDR, 1);
    if (!error && qdisc_bypass)
        error = set_packet_option(fd, PACKET_QDISC_BYPASS, 1);
    return error;
}

int lbfwd_tx_ring(int fd, const struct lbfwd_geometry *geometry)
{
    return set_ring(fd, PACKET_TX_RING, geometry);
}

int lbfwd_send_buffer(int fd, int bytes)
{
    return send_buffer(fd, bytes);
}

int lbfwd_statistics(int fd, struct lbfwd_ring_statistics *out)
{
    return ring_statistics(fd, out);
}

/* ---- forwarding state ---- */

int lbfwd_control_init(void *memory, uint64_t bytes, uint32_t worker_slots, uint64_t arena_bytes)
{
    struct lbfwd_control *control = memory;

    if (bytes < sizeof *control || worker_slots > LBFWD_MAX_WORKERS)
        return -EINVAL;
    memset(control, 0, sizeof *control);
    control->abi = LBFWD_ABI;
    control->worker_slots = worker_slots;
    control->bytes = sizeof *control;
    control->arena_bytes = arena_bytes;
    WRITE_SHARED(control->magic, CONTROL_MAGIC);
    return 0;
}

int lbfwd_vip_insert(struct lbfwd_vip *vips, uint32_t slots, const struct lbfwd_vip *vip)
{
    return is_power_of_two(slots) ? vip_insert(vips, slots, vip) : -EINVAL;
}

int lbfwd_service_insert(struct lbfwd_service *services, uint32_t slots,
                         const struct lbfwd_service *service)
{
    return is_power_of_two(slots) ? service_insert(services, slots, service) : -EINVAL;
}

int lbfwd_snapshot_check(const void *arena, uint64_t bytes, uint64_t offset)
{
    return snapshot_check(arena, bytes, offset);
}

void lbfwd_publish(struct lbfwd_control *control, uint64_t generation, uint64_t offset)
{
    __atomic_store_n(&control->published, generation << 32 | offset / ARENA_UNIT, __ATOMIC_SEQ_CST);
}

int lbfwd_acknowledged(const struct lbfwd_control *control, uint32_t slot, uint64_t generation)
{
    const struct lbfwd_slot *s = &control->slots[slot];
    return __atomic_load_n(&s->quiescent, __ATOMIC_SEQ_CST) ||
           __atomic_load_n(&s->acknowledged, __ATOMIC_SEQ_CST) >= generation;
}

int lbfwd_maglev_populate(uint16_t *table, uint32_t size, const uint32_t *offsets,
                          const uint32_t *skips, const uint32_t *weights, uint32_t backends)
{
    return maglev_populate(table, size, offsets, skips, weights, backends);
}

uint64_t lbfwd_flow_hash(const uint8_t *key, uint32_t length, const uint64_t hash_key[2])
{
    return flow_hash(key, length, hash_key);
}

uint32_t lbfwd_bucket(uint64_t hash, uint32_t table_size)
{
    return flow_bucket(hash, table_size);
}
