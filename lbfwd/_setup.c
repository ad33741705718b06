/* What Python calls besides the packet path: a worker's life, set-up of sockets, shared state. */
#define _GNU_SOURCE
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "_census.h"
#include "_decap.h"
#include "_lanes.h"
#include "_live.h"
#include "_maglev.h"
#include "_occupancy.h"
#include "_probe.h"
#include "_socket.h"
#include "_worker.h"

_Static_assert(sizeof(struct lbfwd_path) == 64, "a path is one cache line");
_Static_assert(sizeof(struct lbfwd_vip) == 32, "shared layout");
_Static_assert(sizeof(struct lbfwd_live) == 64, "a worker's record is one cache line");
_Static_assert(sizeof(struct lbfwd_service) == 48, "shared layout");
_Static_assert(sizeof(struct lbfwd_slot) % 64 == 0, "slots do not share cache lines");
_Static_assert(sizeof(struct lbfwd_counters) % 65536 == 0, "a worker maps its block");
_Static_assert(LBFWD_DROP_COUNT <= 64 && LBFWD_EVENT_COUNT <= 64, "drops[64], events[64]");

/* ---- a worker's life ---- */

static int map_counters(struct lbfwd_worker *w, uint32_t slot, int fd, int sharing)
{
    void *map;

    if (!file_holds(fd, (slot + 1) * sizeof *w->counters))
        return -EBADMSG;
    map = mmap(NULL, sizeof *w->counters, PROT_READ | PROT_WRITE, sharing, fd,
               (off_t)(slot * sizeof *w->counters));
    if (map == MAP_FAILED)
        return -errno;
    w->counters = map;
    return 0;
}

struct files { int control, arena, counters, flows; };

/* Everything that a worker maps; what failed is undone by lbfwd_worker_free. */
static int map_files(struct lbfwd_worker *w, uint32_t slot, const struct files *files, int sharing)
{
    int error = map_control(w, files->control, sharing);
    if (!error)
        error = map_counters(w, slot, files->counters, sharing);
    if (!error)
        error = map_flows(w, slot, files->flows, sharing);
    return error ? error : map_arena(w, files->arena);
}

static int worker_new(struct lbfwd_worker **out, uint32_t slot, const struct files *files,
                      int sharing)
{
    struct lbfwd_worker *w;
    int error;

    if (slot >= LBFWD_MAX_WORKERS)
        return -EINVAL;
    w = calloc(1, sizeof *w);
    if (!w)
        return -ENOMEM;
    w->has_lanes = have_lanes();
    w->next_identification = (uint16_t)(slot << 10); /* workers share the outer addresses */
    for (uint32_t i = 0; i < LBFWD_MAX_TX; i++)
        w->tx[i].fd = -1;
    for (uint32_t i = 0; i < LBFWD_MAX_RX; i++)
        w->rx[i].fd = -1;
    w->fragments = calloc(1, sizeof *w->fragments);
    error = w->fragments ? map_files(w, slot, files, sharing) : -ENOMEM;
    if (error) {
        lbfwd_worker_free(w);
        return error;
    }
    w->slot = &w->control->slots[slot];
    read_clock(w);
    end_references(w); /* whatever the last worker of this slot left there */
    *out = w;
    return 0;
}

int lbfwd_worker_new(struct lbfwd_worker **out, uint32_t slot, int control_fd, int arena_fd,
                     int counters_fd, int flows_fd)
{
    const struct files files = {control_fd, arena_fd, counters_fd, flows_fd};
    return worker_new(out, slot, &files, MAP_SHARED);
}

int lbfwd_rehearsal_new(struct lbfwd_worker **out, uint32_t slot, int control_fd, int arena_fd,
                        int counters_fd, int flows_fd)
{
    const struct files files = {control_fd, arena_fd, counters_fd, flows_fd};
    return worker_new(out, slot, &files, MAP_PRIVATE);
}

void lbfwd_worker_free(struct lbfwd_worker *w)
{
    for (uint32_t i = 0; i < LBFWD_MAX_RX; i++)
        if (w->rx[i].map)
            rx_detach(&w->rx[i]);
    for (uint32_t i = 0; i < LBFWD_MAX_TX; i++)
        if (w->tx[i].map)
            tx_detach(&w->tx[i]);
    if (w->flows_map)
        munmap((void *)(uintptr_t)w->flows_map, w->flows_bytes);
    if (w->counters)
        munmap(w->counters, sizeof *w->counters);
    if (w->arena)
        munmap((void *)(uintptr_t)w->arena, LBFWD_ARENA_MOST);
    if (w->control)
        munmap(w->control, w->control_bytes);
    free(w->fragments);
    free(w);
}

int lbfwd_worker_add_rx(struct lbfwd_worker *w, uint32_t index, int fd,
                        const struct lbfwd_geometry *geometry)
{
    int error;

    if (index >= LBFWD_MAX_RX)
        return -EINVAL;
    error = rx_attach(&w->rx[index], fd, geometry, &w->slot->rx[index]);
    pair_rings(w);
    return error;
}

int lbfwd_worker_add_tx(struct lbfwd_worker *w, uint32_t index, int fd,
                        const struct lbfwd_geometry *geometry)
{
    int error;

    if (index >= LBFWD_MAX_TX)
        return -EINVAL;
    error = tx_attach(&w->tx[index], fd, geometry);
    pair_rings(w);
    return error;
}

int lbfwd_worker_remove_tx(struct lbfwd_worker *w, uint32_t index)
{
    if (index >= LBFWD_MAX_TX || !w->tx[index].map)
        return -ENOENT;
    tx_flush(&w->tx[index], w->counters, w->slot);
    tx_reclaim(&w->tx[index], w->counters, LBFWD_DROP_TX_LINK_DOWN);
    tx_detach(&w->tx[index]);
    pair_rings(w);
    return 0;
}

/* What still waits for its datagram's first fragment will not see it: that comes to the successor. */
void lbfwd_worker_retire(struct lbfwd_worker *w)
{
    uint64_t waiting = (uint64_t)fragment_expire(w->fragments, UINT64_MAX);

    tx_count_drop(w->counters, LBFWD_DROP_FRAGMENT_UNMATCHED, waiting);
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

int lbfwd_flows_init(void *memory, uint64_t bytes, uint32_t workers, uint32_t buckets)
{
    struct lbfwd_flows_header *header = memory;

    if (bytes < sizeof *header || !workers || workers > LBFWD_MAX_WORKERS || !buckets)
        return -EINVAL;
    *header = (struct lbfwd_flows_header){FLOWS_MAGIC, LBFWD_ABI, workers, buckets, 0};
    return 0;
}

int lbfwd_flow_census(const void *flows, uint64_t bytes, const uint16_t lifetimes_s[8], uint16_t now_s,
                      struct lbfwd_flow_row *rows, uint32_t count)
{
    return flow_census(flows, bytes, lifetimes_s, now_s, rows, count);
}

int64_t lbfwd_flows_in_use(const void *flows, uint64_t bytes, const uint16_t lifetimes_s[8],
                           uint16_t now_s, uint32_t worker)
{
    return flows_in_use(flows, bytes, lifetimes_s, now_s, worker);
}

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

void lbfwd_live_arm(struct lbfwd_control *control, const uint8_t token[16], uint64_t until_ms)
{
    live_arm(control, token, until_ms);
}

int lbfwd_live_read(const struct lbfwd_control *control, uint32_t slot, struct lbfwd_live *out)
{
    return slot < LBFWD_MAX_WORKERS ? live_read(&control->slots[slot].live, out) : -EINVAL;
}

int lbfwd_maglev_populate(uint16_t *table, uint32_t size, const uint32_t *offsets,
                          const uint32_t *skips, const uint32_t *weights, uint32_t backends)
{
    return maglev_populate(table, size, offsets, skips, weights, backends);
}

uint64_t lbfwd_flow_hash(const uint8_t *key, uint32_t length, const uint64_t hash_key[2])
{
    const struct lbfwd_siphash seed = siphash_seed(hash_key);
    return siphash(key, length, &seed);
}

uint32_t lbfwd_bucket(uint64_t hash, uint32_t table_size)
{
    return flow_bucket(hash, table_size);
}
