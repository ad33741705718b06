/* Sends flows of one shape as fast as it can, or at a rate (generate.py builds the frame).
 *
 *   generate INTERFACE FRAME FLOWS FIRST COUNT RATE
 *
 * FRAME: a file with one Ethernet frame, IPv4 or IPv6 without options, UDP or TCP, its checksums
 * right. Every flow is that frame with a source address and port of its own. FIRST: number of the
 * first flow. COUNT: frames to send (0: until SIGTERM), RATE: frames a second (0: no limit). At the
 * end a line is printed: frames sent, nanoseconds. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "_bytes.h"

#define HEADER_BYTES 80      /* of a flow: 74 for Ethernet, IPv6 and TCP */
#define LEAST_BYTES 60
#define MOST_BYTES 9014
#define MOST_FLOWS (1 << 24) /* flows differ in 24 bits of the source address */
#define MOST_BATCH 64
#define BATCHES_A_SECOND 10000 /* at a rate: the finest that sleeping gives */

struct traffic {
    uint8_t frame[MOST_BYTES];
    uint32_t length;
    uint32_t header;         /* bytes of a frame that are the flow's own */
    uint8_t *headers;        /* header bytes of each flow, in the order in which they are sent */
    uint32_t flows;
    uint32_t next;           /* flow */
};

static volatile sig_atomic_t stopping;

static void stop(int signal_number)
{
    (void)signal_number;
    stopping = 1;
}

static void fail(const char *what)
{
    fprintf(stderr, "generate: %s\n", what);
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void read_frame(struct traffic *t, const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, t->frame, sizeof t->frame);

    if (got < LEAST_BYTES)
        fail("FRAME: cannot be read, or is shorter than 60 bytes");
    close(fd);
    t->length = (uint32_t)got;
    t->header = t->length < HEADER_BYTES ? t->length : HEADER_BYTES;
}

/* Replaces 16 bits that checksums cover (RFC 1624, eqn. 3). */
static void replace(uint8_t *at, uint16_t value, uint8_t *const *checksums)
{
    uint16_t before = load_be16(at);

    store_be16(at, value);
    for (; *checksums; checksums++) {
        uint32_t sum = (uint16_t)~load_be16(*checksums) + (uint32_t)(uint16_t)~before + value;
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        store_be16(*checksums, (uint16_t)~sum);
    }
}

/* Flow n: an odd factor scatters neighbours all over the 24 bits, and no two flows meet. */
static void make_flow(uint8_t *frame, uint32_t n)
{
    int v6 = load_be16(frame + 12) == ETH_P_IPV6;
    uint8_t *ip = frame + ETH_HLEN, *l4 = ip + (v6 ? 40 : 20);
    uint8_t *source = ip + (v6 ? 8 + 12 : 12);
    int udp = ip[v6 ? 6 : 9] == IPPROTO_UDP;
    uint8_t *l4_checksum = l4 + (udp ? 6 : 16);
    uint8_t *of_ports[] = {l4_checksum, NULL};
    uint8_t *of_address[] = {l4_checksum, v6 ? NULL : ip + 10, NULL};
    uint32_t client = n * 0x9e3779b1u & (MOST_FLOWS - 1);

    replace(source, (uint16_t)(load_be16(source) & 0xff00) | (uint16_t)(client >> 16), of_address);
    replace(source + 2, (uint16_t)client, of_address);
    replace(l4, (uint16_t)(1024 + n % 60000), of_ports);
    if (udp && !load_be16(l4_checksum))
        store_be16(l4_checksum, 0xffff); /* 0 would mean "none" (RFC 768) */
}

static void make_flows(struct traffic *t, uint32_t first)
{
    t->headers = malloc((size_t)t->flows * HEADER_BYTES);
    if (!t->headers)
        fail("no memory for so many flows");
    for (uint32_t i = 0; i < t->flows; i++) {
        uint8_t *header = t->headers + (size_t)i * HEADER_BYTES;
        memcpy(header, t->frame, t->header);
        make_flow(header, first + i);
    }
}

static int open_socket(const char *interface)
{
    struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex(interface)};
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0), on = 1;

    if (fd < 0 || setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof on) < 0)
        fail("cannot open a packet socket");
    if (!address.sll_ifindex || bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
        fail("INTERFACE: no such interface");
    return fd;
}

/* Sends the next flows' frames; returns how many the kernel took. */
static uint32_t send_batch(struct traffic *t, int fd, uint32_t batch)
{
    struct iovec parts[MOST_BATCH][2];
    struct mmsghdr messages[MOST_BATCH] = {0};
    int sent;

    for (uint32_t i = 0; i < batch; i++) {
        uint32_t flow = (t->next + i) % t->flows;
        parts[i][0] = (struct iovec){t->headers + (size_t)flow * HEADER_BYTES, t->header};
        parts[i][1] = (struct iovec){t->frame + t->header, t->length - t->header};
        messages[i].msg_hdr.msg_iov = parts[i];
        messages[i].msg_hdr.msg_iovlen = t->length > t->header ? 2 : 1;
    }
    sent = sendmmsg(fd, messages, batch, 0);
    if (sent < 0 && errno != EINTR && errno != ENOBUFS && errno != EAGAIN)
        fail("the interface does not send");
    if (sent <= 0)
        return 0;
    t->next = (t->next + (uint32_t)sent) % t->flows;
    return (uint32_t)sent;
}

static void sleep_until(uint64_t ns)
{
    struct timespec at = {(time_t)(ns / 1000000000), (long)(ns % 1000000000)};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
}

static void run(struct traffic *t, int fd, uint64_t count, uint64_t rate)
{
    uint64_t begin = now_ns(), sent = 0, most = rate ? rate / BATCHES_A_SECOND + 1 : MOST_BATCH;

    if (most > MOST_BATCH)
        most = MOST_BATCH;
    while (!count || sent < count) {
        uint64_t batch = count && count - sent < most ? count - sent : most;
        if (rate)
            sleep_until(begin + (uint64_t)((double)sent * 1e9 / (double)rate));
        if (stopping)
            break;
        sent += send_batch(t, fd, (uint32_t)batch);
    }
    printf("%llu %llu\n", (unsigned long long)sent, (unsigned long long)(now_ns() - begin));
}

int main(int argc, char **argv)
{
    static struct traffic traffic;
    struct sigaction on_stop = {.sa_handler = stop};

    if (argc != 7)
        fail("usage: generate INTERFACE FRAME FLOWS FIRST COUNT RATE");
    sigaction(SIGTERM, &on_stop, NULL);
    prctl(PR_SET_TIMERSLACK, 1);
    read_frame(&traffic, argv[2]);
    traffic.flows = (uint32_t)strtoul(argv[3], NULL, 10);
    if (!traffic.flows || traffic.flows > MOST_FLOWS)
        fail("FLOWS: must be 1 to 16777216");
    make_flows(&traffic, (uint32_t)strtoul(argv[4], NULL, 10));
    run(&traffic, open_socket(argv[1]), strtoull(argv[5], NULL, 10), strtoull(argv[6], NULL, 10));
    return 0;
}
