/* A steady stream of numbered frames through a network: when each was sent and when it arrived.
 *
 *   probe SEND_NETNS SEND_IF RECEIVE_NETNS RECEIVE_IF FRAMES FRAME_BYTES RATE COUNT
 *
 * FRAMES: a file of templates, FRAME_BYTES each, that are sent in turn, RATE a second, until COUNT
 * are sent or SIGTERM comes. A frame's last 16 bytes are the magic and its number; what arrives
 * with the magic at its end is ours, whatever was put before it on its way.
 *
 * Writes a pair of 64-bit numbers a frame to stdout: CLOCK_REALTIME in nanoseconds before the send
 * call, and the kernel's receive timestamp (SO_TIMESTAMPNS, taken when the frame enters the
 * receiving interface); 0: it did not arrive. So the time the prober itself takes to wake up and
 * read counts for nothing. One clock: both ends are on this machine. A frame that the kernel refuses
 * (ENOBUFS: the receiving core's backlog is full) was not sent: it is no loss of the node's. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MAGIC 0x6c6266776470726fULL /* "lbfwdpro" */
#define TRAILER_BYTES 16
#define FRAME_MOST 2048
#define BATCH 64
#define RECEIVE_BYTES (256 << 20)
#define SECOND_NS 1000000000ULL
#define LINGER_NS SECOND_NS         /* after the last frame is sent: nothing takes that long */

struct times { uint64_t sent; uint64_t arrived; };

struct stream {
    uint8_t *templates;
    uint32_t templates_count, frame_bytes;
    uint64_t interval_ns, count, sent, arrived;
    struct times *times;
    int tx, rx;
};

static volatile sig_atomic_t stopped;

static void stop(int number)
{
    (void)number;
    stopped = 1;
}

static void fail(const char *what)
{
    fprintf(stderr, "probe: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void refuse(const char *what, const char *value)
{
    fprintf(stderr, "probe: %s: %s\n", what, value);
    exit(2);
}

static uint64_t nanoseconds(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

/* ---- sockets ---- */

static void set(int fd, int level, int option, int value)
{
    if (setsockopt(fd, level, option, &value, sizeof value) < 0)
        fail("setsockopt");
}

/* A packet socket that stays in the namespace it was opened in. */
static int packet_socket(const char *netns, const char *interface, uint16_t protocol)
{
    struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_protocol = htons(protocol)};
    char path[256];
    int namespace, fd;

    snprintf(path, sizeof path, "/var/run/netns/%s", netns);
    namespace = open(path, O_RDONLY | O_CLOEXEC);
    if (namespace < 0 || setns(namespace, CLONE_NEWNET) < 0)
        fail(path);
    close(namespace);
    address.sll_ifindex = (int)if_nametoindex(interface);
    if (!address.sll_ifindex)
        fail(interface);
    fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    if (fd < 0)
        fail("packet socket");
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
        fail(interface);
    return fd;
}

/* Admits what has the magic 16 bytes before its end. */
static void admit_probes(int fd)
{
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_LEN, 0),
        BPF_STMT(BPF_ALU | BPF_SUB | BPF_K, TRAILER_BYTES),
        BPF_STMT(BPF_MISC | BPF_TAX, 0),
        BPF_STMT(BPF_LD | BPF_W | BPF_IND, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(MAGIC >> 32), 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_IND, 4),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)MAGIC, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, FRAME_MOST),
        BPF_STMT(BPF_RET | BPF_K, 0),
    };
    struct sock_fprog filter = {sizeof program / sizeof *program, program};
    if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter) < 0)
        fail("socket filter");
}

static void open_sockets(struct stream *s, char **names)
{
    s->tx = packet_socket(names[0], names[1], 0);
    set(s->tx, SOL_PACKET, PACKET_QDISC_BYPASS, 1);
    s->rx = packet_socket(names[2], names[3], ETH_P_ALL);
    set(s->rx, SOL_PACKET, PACKET_IGNORE_OUTGOING, 1);
    set(s->rx, SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BYTES);
    set(s->rx, SOL_SOCKET, SO_TIMESTAMPNS, 1);
    admit_probes(s->rx);
}

/* ---- the stream ---- */

static void send_next(struct stream *s)
{
    uint8_t *frame = s->templates + (s->sent % s->templates_count) * s->frame_bytes;
    uint64_t trailer[2] = {htobe64(MAGIC), s->sent};

    memcpy(frame + s->frame_bytes - TRAILER_BYTES, trailer, TRAILER_BYTES);
    s->times[s->sent].sent = nanoseconds(CLOCK_REALTIME);
    if (send(s->tx, frame, s->frame_bytes, 0) >= 0)
        s->sent++;
    else if (errno != ENOBUFS) /* the kernel's backlog is full: it goes when the next is due */
        fail("send");
}

static uint64_t stamp(struct msghdr *message)
{
    struct cmsghdr *control = CMSG_FIRSTHDR(message);
    struct timespec at;

    if (!control || control->cmsg_type != SCM_TIMESTAMPNS)
        return nanoseconds(CLOCK_REALTIME);
    memcpy(&at, CMSG_DATA(control), sizeof at);
    return (uint64_t)at.tv_sec * SECOND_NS + (uint64_t)at.tv_nsec;
}

static void note(struct stream *s, const uint8_t *frame, uint32_t length, struct msghdr *message)
{
    uint64_t number;

    if (length < TRAILER_BYTES || length > FRAME_MOST)
        return;
    memcpy(&number, frame + length - sizeof number, sizeof number);
    if (number >= s->sent || s->times[number].arrived)
        return;
    s->times[number].arrived = stamp(message);
    s->arrived++;
}

/* Reads what has arrived so far. */
static void receive(struct stream *s)
{
    static uint8_t frames[BATCH][FRAME_MOST], controls[BATCH][64];
    struct mmsghdr messages[BATCH];
    struct iovec parts[BATCH];
    int got;

    do {
        for (int i = 0; i < BATCH; i++) {
            parts[i] = (struct iovec){frames[i], FRAME_MOST};
            messages[i].msg_hdr = (struct msghdr){.msg_iov = &parts[i], .msg_iovlen = 1,
                .msg_control = controls[i], .msg_controllen = sizeof controls[i]};
        }
        got = recvmmsg(s->rx, messages, BATCH, MSG_DONTWAIT, NULL);
        for (int i = 0; i < got; i++)
            note(s, frames[i], messages[i].msg_len, &messages[i].msg_hdr);
    } while (got == BATCH);
}

static void sleep_until(uint64_t due)
{
    struct timespec at = {(time_t)(due / SECOND_NS), (long)(due % SECOND_NS)};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
}

static void run(struct stream *s)
{
    uint64_t due = nanoseconds(CLOCK_MONOTONIC), end;

    while (s->sent < s->count && !stopped) {
        sleep_until(due += s->interval_ns);
        send_next(s);
        receive(s);
    }
    end = nanoseconds(CLOCK_MONOTONIC) + LINGER_NS;
    while (s->arrived < s->sent && nanoseconds(CLOCK_MONOTONIC) < end) {
        sleep_until(nanoseconds(CLOCK_MONOTONIC) + SECOND_NS / 1000);
        receive(s);
    }
}

/* ---- from and to the caller ---- */

static uint64_t number(const char *text, uint64_t least, uint64_t most)
{
    char *end;
    uint64_t value = strtoull(text, &end, 10);
    if (*end || end == text || value < least || value > most)
        refuse("a number out of range", text);
    return value;
}

static void read_templates(struct stream *s, const char *path)
{
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || fstat(fd, &status) < 0)
        fail(path);
    if (status.st_size < s->frame_bytes || status.st_size % s->frame_bytes)
        refuse("no whole number of frames", path);
    s->templates_count = (uint32_t)(status.st_size / s->frame_bytes);
    s->templates = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    if (s->templates == MAP_FAILED)
        fail(path);
    close(fd);
}

int main(int argc, char **argv)
{
    struct stream s = {0};

    if (argc != 9)
        refuse("usage", "SEND_NETNS SEND_IF RECEIVE_NETNS RECEIVE_IF FRAMES FRAME_BYTES RATE COUNT");
    s.frame_bytes = (uint32_t)number(argv[6], ETH_HLEN + TRAILER_BYTES, FRAME_MOST);
    s.interval_ns = SECOND_NS / number(argv[7], 1, 1000000);
    s.count = number(argv[8], 1, 1 << 28);
    read_templates(&s, argv[5]);
    s.times = calloc(s.count, sizeof *s.times);
    if (!s.times)
        fail("memory");
    open_sockets(&s, argv + 1);
    signal(SIGTERM, stop);
    run(&s);
    if (fwrite(s.times, sizeof *s.times, s.sent, stdout) != s.sent || fflush(stdout))
        fail("stdout");
    return 0;
}
