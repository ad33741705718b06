/* The limit of this I/O: lbfwd's own rings with every decision left out (reflect.py opens them).
 *
 *   reflect MODE HEADER BUSY_POLL_US RX_FD RX_GEOMETRY TX_FD TX_GEOMETRY
 *
 * Each frame's IP packet leaves behind the same 38 bytes (HEADER, in hex: Ethernet, outer IPv4,
 * GRE), so it grows by 24. MODE: linear, as lbfwd sends, or plain: without the hdr_len that makes
 * the kernel build linear buffers. A geometry is the five numbers of struct lbfwd_geometry, with
 * commas. Prints "ready" when the rings are mapped; ends by SIGTERM. */
#define _GNU_SOURCE
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>

#include "_rx.h"
#include "_tx.h"

#define HEADER_BYTES 38
#define IDLE_WAIT_MS 100
#define ETHERNET_HEADER 14

struct reflector {
    struct lbfwd_rx rx;
    struct lbfwd_tx tx;
    struct lbfwd_position position;
    struct lbfwd_slot slot;
    struct lbfwd_counters *counters;
    uint8_t header[HEADER_BYTES];
    uint64_t busy_poll_ns;
    int plain;
};

static volatile sig_atomic_t stopping;

static void stop(int signal_number)
{
    (void)signal_number;
    stopping = 1;
}

static void fail(const char *what)
{
    fprintf(stderr, "reflect: %s\n", what);
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static struct tpacket3_hdr *claim(struct reflector *r)
{
    enum lbfwd_drop reason;
    struct tpacket3_hdr *slot = tx_claim(&r->tx, &reason);

    if (LIKELY(slot != NULL))
        return slot;
    tx_flush(&r->tx, r->counters, &r->slot);
    return tx_claim(&r->tx, &reason);
}

/* The kernel's own least for the linear part is the Ethernet header (packet_snd, tpacket_fill_skb). */
static void make_plain(uint8_t *out)
{
    memset(out - VNET_BYTES + offsetof(struct virtio_net_hdr, hdr_len), 0, sizeof(uint16_t));
}

static void reflect(struct reflector *r, const struct lbfwd_frame *frame)
{
    uint32_t length = frame->length - ETHERNET_HEADER;
    struct tpacket3_hdr *slot = claim(r);
    uint8_t *out;

    if (UNLIKELY(!slot || frame->length < ETHERNET_HEADER ||
                 HEADER_BYTES + length > tx_capacity(&r->tx)))
        return;
    out = tx_frame(slot);
    memcpy(out, r->header, HEADER_BYTES);
    memcpy(out + HEADER_BYTES, frame->data + ETHERNET_HEADER, length);
    tx_commit(&r->tx, slot, HEADER_BYTES + length, (struct lbfwd_owner){0});
    if (r->plain)
        make_plain(out);
}

static uint32_t reflect_burst(struct reflector *r)
{
    struct lbfwd_frame frames[LBFWD_BURST];
    uint32_t n = rx_take(&r->rx, frames, LBFWD_BURST);

    if (!n)
        return 0;
    for (uint32_t i = 0; i < n; i++)
        reflect(r, &frames[i]);
    tx_flush(&r->tx, r->counters, &r->slot);
    rx_give_back(&r->rx);
    return n;
}

static uint32_t spin(struct reflector *r)
{
    uint64_t end = now_ns() + r->busy_poll_ns;
    uint32_t n = 0;

    while (!n && now_ns() < end)
        n = reflect_burst(r);
    return n;
}

static void run(struct reflector *r)
{
    struct pollfd ready = {.fd = r->rx.fd, .events = POLLIN};

    while (!stopping) {
        if (reflect_burst(r) || (r->busy_poll_ns && spin(r)))
            continue;
        tx_flush(&r->tx, r->counters, &r->slot);
        (void)!poll(&ready, 1, r->tx.pending ? 1 : IDLE_WAIT_MS);
    }
}

static struct lbfwd_geometry geometry_of(const char *text)
{
    struct lbfwd_geometry g;

    if (sscanf(text, "%u,%u,%u,%u,%u", &g.version, &g.block_bytes, &g.blocks, &g.frame_bytes,
               &g.retire_ms) != 5)
        fail("GEOMETRY: must be five numbers with commas");
    return g;
}

static void read_header(struct reflector *r, const char *hex)
{
    if (strlen(hex) != 2 * HEADER_BYTES)
        fail("HEADER: must be 76 hex digits");
    for (uint32_t i = 0; i < HEADER_BYTES; i++)
        if (sscanf(hex + 2 * i, "%2hhx", &r->header[i]) != 1)
            fail("HEADER: must be 76 hex digits");
}

int main(int argc, char **argv)
{
    static struct reflector r;
    struct sigaction on_stop = {.sa_handler = stop};
    struct lbfwd_geometry rx, tx;

    if (argc != 8 || (strcmp(argv[1], "linear") && strcmp(argv[1], "plain")))
        fail("usage: reflect linear|plain HEADER BUSY_POLL_US RX_FD RX_GEOMETRY TX_FD TX_GEOMETRY");
    sigaction(SIGTERM, &on_stop, NULL);
    r.plain = !strcmp(argv[1], "plain");
    read_header(&r, argv[2]);
    r.busy_poll_ns = strtoull(argv[3], NULL, 10) * 1000;
    r.counters = calloc(1, sizeof *r.counters);
    rx = geometry_of(argv[5]);
    tx = geometry_of(argv[7]);
    if (!r.counters || rx_attach(&r.rx, atoi(argv[4]), &rx, &r.position) ||
        tx_attach(&r.tx, atoi(argv[6]), &tx))
        fail("cannot map the rings");
    puts("ready");
    fflush(stdout);
    run(&r);
    return 0;
}
