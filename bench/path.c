/* Nanoseconds a packet of the packet path, from memory (path.py compiles and runs it).
 *
 *   path CONTROL ARENA COUNTERS FLOWS FRAME ROUNDS
 *
 * FRAME: an Ethernet frame with IPv4 and TCP, which every client's frames are made of. A round
 * measures each scenario once; a line a measurement: scenario, nanoseconds. Making the frames is
 * not measured; taking up the generation, forwarding, and settling the TX ring is. */
#include "_ring.c"
#include "_setup.c"

#include <fcntl.h>
#include <stdio.h>

#define BURSTS 4096              /* of one measurement */
#define FRAME_BYTES 64
#define SOURCE_AT (14 + 12)
#define CHECKSUM_AT (14 + 10)
#define PORT_AT (14 + 20)
#define FLAGS_AT (14 + 20 + 13)
#define BEGIN_MS 1000000

struct scenario {
    const char *name;
    uint32_t clients;            /* that take turns; 0: everyone comes once */
    uint8_t tcp_flags;
};

static const struct scenario scenarios[] = {
    {"one flow", 1, TCP_ACK},
    {"65536 flows", 65536, TCP_ACK},
    {"all miss, SYN", 0, TCP_SYN},
    {"all miss, ACK", 0, TCP_ACK},
};
#define SCENARIOS (sizeof scenarios / sizeof *scenarios)

static uint8_t frames[LBFWD_BURST][FRAME_BYTES];
static uint8_t first_frame[FRAME_BYTES];
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
    memcpy(frame, first_frame, FRAME_BYTES);
    store_be32(frame + SOURCE_AT, 0x0b000000 + client);
    store_be16(frame + PORT_AT, (uint16_t)(1024 + client % 60000));
    frame[FLAGS_AT] = tcp_flags;
    memset(frame + CHECKSUM_AT, 0, 2);
    checksum_store(frame + CHECKSUM_AT, checksum_add(0, frame + 14, IPV4_BYTES));
}

static void make_burst(const struct scenario *scenario, uint32_t burst)
{
    for (uint32_t i = 0; i < LBFWD_BURST; i++) {
        uint32_t n = burst * LBFWD_BURST + i;
        /* An odd factor: all clients in turn, in no order that caches know. */
        uint32_t client = scenario->clients ? n * 40503u % scenario->clients : newcomers++;
        make_frame(frames[i], client, scenario->tcp_flags);
    }
}

static uint64_t forward_frames(struct lbfwd_worker *w)
{
    uint64_t begin = now_ns();

    begin_references(w);
    for (uint32_t i = 0; i < LBFWD_BURST; i++) {
        struct lbfwd_frame frame = {.data = frames[i], .length = FRAME_BYTES,
                                    .wire_length = FRAME_BYTES};
        forward_and_count(w, &frame);
    }
    lbfwd_worker_sent_clear(w, 0);
    end_references(w);
    return now_ns() - begin;
}

static double measure(struct lbfwd_worker *w, const struct scenario *scenario)
{
    uint64_t total_ns = 0;

    for (uint32_t burst = 0; burst < BURSTS; burst++) {
        make_burst(scenario, burst);
        total_ns += forward_frames(w);
    }
    return (double)total_ns / BURSTS / LBFWD_BURST;
}

/* All clients that come back are known and confirmed before anything is measured. */
static void warm_up(struct lbfwd_worker *w)
{
    for (uint32_t pass = 0; pass < 2; pass++)
        for (uint32_t i = 0; i < SCENARIOS; i++)
            if (scenarios[i].clients)
                (void)measure(w, &scenarios[i]);
}

static void read_frame(const char *path)
{
    int fd = open_file(path);
    if (read(fd, first_frame, FRAME_BYTES) < 60)
        fail("no frame");
    close(fd);
}

int main(int argc, char **argv)
{
    struct lbfwd_geometry tx = {.version = 3, .block_bytes = 1 << 18, .blocks = 1,
                                .frame_bytes = 2048};
    struct lbfwd_worker *w;
    uint64_t forwarded;

    if (argc != 7)
        fail("usage: path CONTROL ARENA COUNTERS FLOWS FRAME ROUNDS");
    if (lbfwd_worker_new(&w, 0, open_file(argv[1]), open_file(argv[2]), open_file(argv[3]),
                         open_file(argv[4])) ||
        lbfwd_worker_add_tx(w, 0, -1, &tx))
        fail("the worker refuses the files");
    read_frame(argv[5]);
    w->now_ms = BEGIN_MS;
    warm_up(w);
    for (int rounds = atoi(argv[6]); rounds > 0; rounds--)
        for (uint32_t i = 0; i < SCENARIOS; i++)
            printf("%s\t%.2f\n", scenarios[i].name, measure(w, &scenarios[i]));
    forwarded = w->counters->services[0].packets;
    if (!forwarded || forwarded % LBFWD_BURST)
        fail("not every packet was forwarded");
    lbfwd_worker_free(w);
    return 0;
}
