/* The packet path from memory, for path.py, which compiles it and runs it.
 *
 *   path CONTROL ARENA COUNTERS FLOWS FRAME ROUNDS BURSTS [SCENARIO …]
 *
 * FRAME: an Ethernet frame to the VIP; every client's frames are made of it. A round measures each
 * scenario (default: all) once over BURSTS bursts; a line a measurement: scenario, nanoseconds a
 * packet, and those of each step. Making the frames is not measured, nor what the kernel would do
 * with the TX ring; everything between a frame in memory and its packet counted as forwarded is. */
#include "_ring.c"
#include "_setup.c"

#include <fcntl.h>
#include <stdio.h>

#define FRAME_MOST 128
#define PORT_FIRST 1024
#define BEGIN_MS 1000000
#define TCP_FLAGS_AT 13
#define CHECKSUM_AT 10
#define STEPS 4

/* What callgrind counts: path.py asks for functions of these names. */
#define MEASURED __attribute__((noinline)) void

struct scenario {
    const char *name;
    uint32_t clients;            /* that take turns; 0: everyone comes once */
    uint8_t tcp_flags;
};

static const struct scenario scenarios[] = {
    {"one flow", 1, TCP_ACK},
    {"65536 flows", 65536, TCP_ACK},
    {"1048576 flows", 1048576, TCP_ACK},
    {"miss", 0, TCP_SYN},
    {"miss without SYN", 0, TCP_ACK},
};
#define SCENARIOS (sizeof scenarios / sizeof *scenarios)

struct measurement { uint64_t step_ns[STEPS]; };

static uint8_t frames[LBFWD_BURST][FRAME_MOST];
static struct lbfwd_frame burst[LBFWD_BURST];
static struct lbfwd_job jobs[LBFWD_BURST];
static uint8_t first_frame[FRAME_MOST];
static uint32_t frame_bytes;
static uint32_t newcomers = 1 << 24; /* clients that nobody has seen */

static void fail(const char *what)
{
    fprintf(stderr, "path: %s\n", what);
    exit(1);
}

static int open_file(const char *path)
{
    int fd = open(path, O_RDWR);
    if (fd < 0)
        fail(path);
    return fd;
}

/* Client n's frame: its address and port are n, spread over all. */
static void make_frame(uint8_t *frame, uint32_t client, uint8_t tcp_flags)
{
    uint8_t *ip = frame + ETHERNET_BYTES;
    int is_ipv4 = first_frame[ETHERNET_BYTES] >> 4 == 4;
    uint8_t *transport = ip + (is_ipv4 ? IPV4_BYTES : IPV6_BYTES);

    memcpy(frame, first_frame, frame_bytes);
    store_be32(is_ipv4 ? ip + 12 : ip + 20, 0x0b000000 + client);
    store_be16(transport, (uint16_t)(PORT_FIRST + client % 60000));
    if (ip[is_ipv4 ? 9 : 6] == IPPROTO_TCP)
        transport[TCP_FLAGS_AT] = tcp_flags;
    if (!is_ipv4)
        return;
    memset(ip + CHECKSUM_AT, 0, 2);
    checksum_store(ip + CHECKSUM_AT, checksum_add(0, ip, IPV4_BYTES));
}

static void make_burst(const struct scenario *scenario, uint32_t number)
{
    for (uint32_t i = 0; i < LBFWD_BURST; i++) {
        uint32_t n = number * LBFWD_BURST + i;
        /* An odd factor: all clients in turn, in no order that caches know. */
        uint32_t client = scenario->clients ? n * 2654435761u % scenario->clients : newcomers++;
        make_frame(frames[i], client, scenario->tcp_flags);
        burst[i] = (struct lbfwd_frame){.data = frames[i], .length = frame_bytes,
                                        .wire_length = frame_bytes};
        jobs[i].frame = &burst[i];
    }
}

MEASURED step_identify(struct lbfwd_worker *w)
{
    begin_references(w);
    identify_all(w, jobs, LBFWD_BURST);
}

MEASURED step_choose(struct lbfwd_worker *w)
{
    choose_all(w, jobs, LBFWD_BURST);
}

MEASURED step_emit(struct lbfwd_worker *w)
{
    finish_all(w, jobs, LBFWD_BURST);
    end_references(w);
}

MEASURED step_count(struct lbfwd_worker *w)
{
    tx_settle(&w->tx[0], w->counters);
}

/* What the kernel does with the ring before the frames are counted. */
static void take_frames(struct lbfwd_tx *tx)
{
    for (uint32_t i = 0, at = tx_oldest(tx); i < tx->pending; i++, at = tx_step(tx, at, 1))
        WRITE_SHARED(tx_slot(tx, at)->tp_status, TP_STATUS_AVAILABLE);
}

static uint64_t timed(void (*step)(struct lbfwd_worker *), struct lbfwd_worker *w, uint64_t begin,
                      uint64_t *sum)
{
    uint64_t end;

    step(w);
    end = now_ns();
    *sum += end - begin;
    return end;
}

static void measure_burst(struct lbfwd_worker *w, struct measurement *m)
{
    uint64_t at = now_ns();

    at = timed(step_identify, w, at, &m->step_ns[0]);
    at = timed(step_choose, w, at, &m->step_ns[1]);
    timed(step_emit, w, at, &m->step_ns[2]);
    take_frames(&w->tx[0]);
    timed(step_count, w, now_ns(), &m->step_ns[3]);
}

static struct measurement measure(struct lbfwd_worker *w, const struct scenario *scenario,
                                  uint32_t bursts)
{
    struct measurement m = {{0}};

    for (uint32_t number = 0; number < bursts; number++) {
        make_burst(scenario, number);
        measure_burst(w, &m);
    }
    return m;
}

/* Newcomers leave an entry each; a table full of them would be a flood, which is another question. */
static void forget_newcomers(struct lbfwd_worker *w)
{
    for (uint32_t i = 0; i < w->flows.buckets * LBFWD_FLOW_WAYS; i++) {
        struct lbfwd_flow_entry *entry = &w->flows.own[i / LBFWD_FLOW_WAYS].ways[i % LBFWD_FLOW_WAYS];
        if (flow_state(entry->value) == LBFWD_FLOW_UNCONFIRMED)
            entry->value = 0;
    }
}

/* All clients that come back are known and confirmed before anything is measured. */
static void warm_up(struct lbfwd_worker *w, const struct scenario *scenario)
{
    uint32_t bursts = (scenario->clients + LBFWD_BURST - 1) / LBFWD_BURST;
    (void)measure(w, scenario, bursts);
    (void)measure(w, scenario, bursts);
}

static void print(const struct scenario *scenario, const struct measurement *m, uint32_t bursts)
{
    uint64_t total_ns = 0;

    for (uint32_t step = 0; step < STEPS; step++)
        total_ns += m->step_ns[step];
    printf("%s\t%.2f", scenario->name, (double)total_ns / bursts / LBFWD_BURST);
    for (uint32_t step = 0; step < STEPS; step++)
        printf("\t%.2f", (double)m->step_ns[step] / bursts / LBFWD_BURST);
    printf("\n");
}

static int is_chosen(const char *name, int names, char **chosen)
{
    for (int i = 0; i < names; i++)
        if (!strcmp(chosen[i], name))
            return 1;
    return !names;
}

static void run(struct lbfwd_worker *w, int rounds, uint32_t bursts, int names, char **chosen)
{
    for (uint32_t i = 0; i < SCENARIOS; i++)
        if (is_chosen(scenarios[i].name, names, chosen))
            warm_up(w, &scenarios[i]);
    for (; rounds > 0; rounds--)
        for (uint32_t i = 0; i < SCENARIOS; i++) {
            struct measurement m;
            if (!is_chosen(scenarios[i].name, names, chosen))
                continue;
            m = measure(w, &scenarios[i], bursts);
            if (!scenarios[i].clients)
                forget_newcomers(w);
            print(&scenarios[i], &m, bursts);
        }
}

static void read_frame(const char *path)
{
    int fd = open_file(path);
    ssize_t got = read(fd, first_frame, FRAME_MOST);
    if (got < 60)
        fail("no frame");
    frame_bytes = (uint32_t)got;
    close(fd);
}

static uint64_t forwarded(const struct lbfwd_worker *w)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < LBFWD_MAX_SERVICES; i++)
        sum += w->counters->services[i].packets;
    return sum;
}

int main(int argc, char **argv)
{
    struct lbfwd_geometry tx = {.version = 3, .block_bytes = 1 << 18, .blocks = 1,
                                .frame_bytes = 2048};
    struct lbfwd_worker *w;
    uint64_t dropped = 0;

    if (argc < 8)
        fail("usage: path CONTROL ARENA COUNTERS FLOWS FRAME ROUNDS BURSTS [SCENARIO ...]");
    if (lbfwd_worker_new(&w, 0, open_file(argv[1]), open_file(argv[2]), open_file(argv[3]),
                         open_file(argv[4])) ||
        lbfwd_worker_add_tx(w, 0, -1, &tx))
        fail("the worker refuses the files");
    read_frame(argv[5]);
    w->now_ms = BEGIN_MS;
    run(w, atoi(argv[6]), (uint32_t)atoi(argv[7]), argc - 8, argv + 8);
    for (uint32_t i = 0; i < LBFWD_DROP_COUNT; i++)
        dropped += w->counters->drops[i];
    if (dropped || !forwarded(w))
        fail("not every packet was forwarded");
    lbfwd_worker_free(w);
    return 0;
}
