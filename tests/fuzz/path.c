/* libFuzzer target: several frames through the whole packet path of two workers, from memory, with
 * time passing between them, so that flows, fragments and rates have a past.
 *
 *   LBFWD_FUZZ_STATE=DIR path CORPUS…       DIR: a published state (state.py)
 *
 * Input: records of `how` (2 bytes, little-endian), length (2 bytes), virtio_net_hdr and frame.
 * how: bit 0 worker, bits 1-3 time step, bit 4 mend the IPv4 checksum, bits 5-6 packet type,
 * bit 7 the node has answered enough, bit 8 the first of two generations, not the second. */
#include "_ring.c"
#include "_setup.c"

#include <fcntl.h>
#include <stdio.h>
#include <sys/sendfile.h>

#include "invariants.h"

#define WORKERS 2
#define TX_RINGS 2
#define RECORD_BYTES 4           /* what stands before virtio_net_hdr */
#define MOST_RECORDS 24
#define BEGIN_MS 70000000        /* the 16-bit clock of flow entries has come round once */
#define COUNTED 64               /* services of the state: fewer than this */

struct record {
    uint8_t *bytes;              /* of exactly its size */
    uint32_t length;
};

static struct lbfwd_worker *workers[WORKERS];
static uint8_t *flows;
static uint64_t generations[2];  /* values of control->published */
static struct record records[MOST_RECORDS];
static uint32_t record_count;

/* A copy in memory: several processes may fuzz at once. */
static int open_part(const char *name)
{
    char path[4096];
    const char *directory = getenv("LBFWD_FUZZ_STATE");
    int file, copy = memfd_create(name, 0);
    struct stat status;

    snprintf(path, sizeof path, "%s/%s", directory ? directory : ".", name);
    file = open(path, O_RDONLY);
    if (file < 0 || copy < 0 || fstat(file, &status) < 0 ||
        sendfile(copy, file, NULL, (size_t)status.st_size) != status.st_size ||
        lseek(copy, 0, SEEK_SET)) {
        fprintf(stderr, "%s: cannot be read; LBFWD_FUZZ_STATE names a state\n", path);
        exit(2);
    }
    close(file);
    return copy;
}

static void make_worker(uint32_t slot, const int parts[4])
{
    struct lbfwd_geometry tx = {.version = 3, .block_bytes = 1 << 17, .blocks = 4,
                                .frame_bytes = 2048};

    if (lbfwd_worker_new(&workers[slot], slot, parts[0], parts[1], parts[2], parts[3]))
        exit(2);
    for (uint32_t ring = 0; ring < TX_RINGS; ring++)
        if (lbfwd_worker_add_tx(workers[slot], ring, -1, &tx))
            exit(2);
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    const int parts[4] = {open_part("control"), open_part("arena"), open_part("counters"),
                          open_part("flows")};
    static const uint8_t token[16]; /* of marked packets: they are looked for all the time */

    (void)argc;
    (void)argv;
    for (uint32_t slot = 0; slot < WORKERS; slot++)
        make_worker(slot, parts);
    lbfwd_live_arm(workers[0]->control, token, UINT64_MAX);
    flows = (uint8_t *)(uintptr_t)workers[0]->flows.all;
    generations[0] = workers[0]->control->published;
    if (read(open_part("first"), &generations[1], sizeof generations[1]) != sizeof generations[1])
        exit(2);
    return 0;
}

/* Every input meets the same past: none. */
static void forget(void)
{
    memset(flows, 0, workers[0]->flows_bytes - LBFWD_FLOWS_HEADER);
    for (uint32_t slot = 0; slot < WORKERS; slot++) {
        struct lbfwd_worker *w = workers[slot];
        memset(w->fragments->routes, 0, sizeof w->fragments->routes);
        w->fragments->oldest = w->fragments->count = 0;
        memset(&w->answers_paid_us, 0, sizeof w->answers_paid_us);
        w->flows.sweep = 0;
        w->swept_s = 0;
    }
    for (; record_count; record_count--)
        free(records[record_count - 1].bytes);
}

static uint64_t count_held(const struct lbfwd_worker *w)
{
    uint64_t held = 0;

    for (uint32_t i = 0; i < w->fragments->count; i++)
        held += w->fragments->held_keys[(w->fragments->oldest + i) % HELD_MOST] != 0;
    return held;
}

static uint64_t count_all(const struct lbfwd_worker *w)
{
    uint64_t counted = 0;

    for (uint32_t i = 0; i < LBFWD_DROP_COUNT; i++)
        counted += w->counters->drops[i];
    for (uint32_t i = 0; i < COUNTED; i++)
        counted += w->counters->services[i].packets;
    return counted + count_held(w);
}

static const struct lbfwd_path *find_path(const struct lbfwd_path *path, uint32_t count,
                                          const uint8_t *frame)
{
    uint32_t at = 14 + (frame[14] >> 4 == 4 ? 16 : 24), bytes = frame[14] >> 4 == 4 ? 4 : 16;

    for (uint32_t n = 0; n < count; n++, path++)
        if (!memcmp(path->header, frame, 14) && !memcmp(path->header + at, frame + at, bytes))
            return path;
    return NULL;
}

/* The path that the outer header belongs to, to a backend or (*to_peer) to another node. */
static const struct lbfwd_path *path_of(const struct lbfwd_view *view, const uint8_t *frame,
                                        int *to_peer)
{
    const struct lbfwd_path *path = find_path(view->peer_paths, view->snapshot->peer_paths, frame);

    *to_peer = path != NULL;
    for (uint32_t i = 0; i < view->snapshot->backends && !path; i++)
        path = find_path(&view->paths[view->backends[i].path_first], view->backends[i].path_count,
                         frame);
    MUST(path);
    return path;
}

static const uint8_t *frame_of(const struct record *record) { return record->bytes + VNET_BYTES; }

/* Nothing but what came leaves: the packet as it was, or bytes of it behind its own header. `ip`: the
 * packet that came, with so much room behind its beginning. */
static int comes_from_packet(const struct ip_view *inner, const uint8_t *ip, int64_t room)
{
    int64_t header, from, part;

    if (room < inner->header || ip[0] >> 4 != inner->family)
        return 0;
    if (room >= inner->length && !memcmp(ip, inner->at, inner->length))
        return 1;
    if (inner->family == 6 || memcmp(ip + 4, inner->at + 4, 2) || memcmp(ip + 12, inner->at + 12, 8))
        return 0;
    header = inner->header;
    from = ((int64_t)(be16(inner->at + 6) & 0x1fff) - (int64_t)(be16(ip + 6) & 0x1fff)) * 8;
    part = (int64_t)inner->length - header;
    if (from < 0 || header + from + part > room || be16(ip + 6) & 0x4000)
        return 0;
    return !memcmp(ip + header + from, inner->at + header, (size_t)part);
}

/* By itself; or, unless it goes to another node, in marked GRE from another node. */
static int comes_from(const struct ip_view *inner, const struct record *record, int to_peer)
{
    const uint8_t *ip = frame_of(record) + 14;
    int64_t room = (int64_t)record->length - VNET_BYTES - 14, outer;

    if (comes_from_packet(inner, ip, room))
        return 1;
    outer = room > 0 && ip[0] >> 4 == 4 ? 20 : 40;
    return !to_peer && room > outer + 4 && ip[outer == 20 ? 9 : 6] == 47 &&
           be16(ip + outer) == LBFWD_PEER_MARK && is_fragment(inner) &&
           comes_from_packet(inner, ip + outer + 4, room - outer - 4);
}

/* A packet with offload metadata is finished on the way: at least its checksum is right then. */
static int was_finished(const struct ip_view *inner, const struct record *record)
{
    const uint8_t *vnet = record->bytes;

    if (!(vnet[0] & 1) && !vnet[1])
        return 0;
    if (vnet[1] && inner->family == 4 && !(be16(inner->at + 6) & 0x3fff))
        MUST((inner->at[9] == 17 && !be16(inner->at + inner->header + 6)) ||
             transport_sound(inner, inner->at[9], inner->header));
    return 1;
}

static void check_frame(const struct lbfwd_worker *w, const uint8_t *frame, uint32_t length)
{
    const struct record *now = &records[record_count - 1];
    const struct lbfwd_path *path;
    struct ip_view inner;
    uint8_t protocol;
    int to_peer;

    MUST(length >= 34);
    protocol = frame[14] >> 4 == 4 ? frame[23] : frame[20];
    if (protocol != 47) {
        MUST(length <= 14 + 1500);
        check_answer(frame, length, frame_of(now));
        return;
    }
    path = path_of(&w->view, frame, &to_peer);
    inner = check_tunnel(frame, length, path->mtu, to_peer ? LBFWD_PEER_MARK : 0);
    if (was_finished(&inner, now))
        return;
    for (uint32_t i = record_count; i; i--)
        if (comes_from(&inner, &records[i - 1], to_peer))
            return;
    MUST(!"a packet that nobody sent");
}

static uint32_t check_sent(struct lbfwd_worker *w)
{
    const uint8_t *frame;
    uint32_t length, sent = 0;

    for (uint32_t ring = 0; ring < TX_RINGS; ring++) {
        for (uint32_t n = 0; !lbfwd_worker_sent(w, ring, n, &frame, &length); n++, sent++)
            check_frame(w, frame, length);
        lbfwd_worker_sent_clear(w, ring);
    }
    return sent;
}

static void mend(struct record *record)
{
    uint8_t *ip = record->bytes + VNET_BYTES + 14;
    uint32_t header, sum;

    if (record->length < VNET_BYTES + 14 + 20 || ip[0] >> 4 != 4)
        return;
    header = (ip[0] & 15u) * 4;
    if (header < 20 || record->length < VNET_BYTES + 14 + header)
        return;
    ip[10] = ip[11] = 0;
    sum = ~ones_sum(0, ip, header);
    ip[10] = (uint8_t)(sum >> 8);
    ip[11] = (uint8_t)sum;
}

/* lbfwd_worker_forward, with what a ring says beside: who the frame was sent to. */
static void take_frame(struct lbfwd_worker *w, const struct record *record, uint8_t type)
{
    struct lbfwd_frame frame = {.data = frame_of(record), .packet_type = type};

    memcpy(&frame.offload, record->bytes, VNET_BYTES);
    frame.length = frame.wire_length = record->length - VNET_BYTES;
    begin_references(w);
    ADD_COUNT(w->slot->seen, 1);
    tick(w);
    forward_received(w, &frame, 1);
    end_references(w);
}

static void run_record(uint32_t how, uint64_t now_ms)
{
    struct lbfwd_worker *w = workers[how & 1];
    struct record *record = &records[record_count - 1];
    uint64_t seen = w->slot->seen, counted = count_all(w);

    if (how & 0x10)
        mend(record);
    w->now_ms = now_ms;
    for (uint32_t kind = 0; kind < ANSWER_KINDS && how & 0x80; kind++)
        w->answers_paid_us[kind] = now_ms * 1000;
    w->control->published = generations[how >> 8 & 1];
    take_frame(w, record, how >> 5 & 3);
    check_sent(w);
    MUST(w->slot->seen - seen >= 1);
    MUST(count_all(w) - counted == w->slot->seen - seen);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint32_t steps_ms[8] = {0, 0, 1, 400, 1000, 6000, 61000, 1000000};
    uint64_t now_ms = BEGIN_MS;

    forget();
    while (size >= RECORD_BYTES + VNET_BYTES && record_count < MOST_RECORDS) {
        uint32_t how = data[0] | (uint32_t)data[1] << 8, length = data[2] | (uint32_t)data[3] << 8;
        struct record *record = &records[record_count];

        size -= RECORD_BYTES;
        data += RECORD_BYTES;
        length = length < VNET_BYTES ? VNET_BYTES : length;
        length = length > size ? (uint32_t)size : length;
        *record = (struct record){malloc(length), length};
        memcpy(record->bytes, data, length);
        record_count++;
        now_ms += steps_ms[how >> 1 & 7];
        run_record(how, now_ms);
        data += length;
        size -= length;
    }
    return 0;
}
