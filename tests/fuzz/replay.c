/* Replays frames through the packet path, compiled with sanitizers (test_replay.py).
 *
 *   replay CONTROL ARENA COUNTERS FLOWS FRAMES SEED ROUNDS
 *
 * FRAMES holds records: a length (uint32_t, host order), then virtio_net_hdr and frame. They are
 * forwarded in bursts, each from memory of exactly its size. Then, ROUNDS times, a copy of the
 * published state is damaged at random: it is refused, or frames are forwarded with it; neither may
 * go wrong. */
#include "_ring.c"
#include "_setup.c"

#include <fcntl.h>
#include <stdio.h>

#define TX_RINGS 2
#define TX_BLOCKS 32 /* of 64 frames: super-frames of a burst become many */
#define FRAMES_A_ROUND 8
#define BEGIN_MS 1000000

struct corpus {
    uint8_t *bytes;
    uint64_t length;
    uint64_t at;
};

static void fail(const char *what)
{
    fprintf(stderr, "replay: %s\n", what);
    exit(1);
}

static int open_file(const char *path, int flags)
{
    int fd = open(path, flags);
    if (fd < 0)
        fail(path);
    return fd;
}

static struct corpus read_corpus(const char *path)
{
    struct corpus corpus = {0};
    struct stat status;
    int fd = open_file(path, O_RDONLY);

    if (fstat(fd, &status) < 0 || status.st_size <= 0)
        fail("no frames");
    corpus.length = (uint64_t)status.st_size;
    corpus.bytes = malloc(corpus.length);
    if (!corpus.bytes || read(fd, corpus.bytes, corpus.length) != status.st_size)
        fail("cannot read the frames");
    close(fd);
    return corpus;
}

/* The next record in memory of its own, so that one byte too far is noticed; NULL at the end. */
static uint8_t *next_record(struct corpus *corpus, uint32_t *length)
{
    uint8_t *record;

    if (corpus->length - corpus->at < sizeof *length)
        return NULL;
    memcpy(length, corpus->bytes + corpus->at, sizeof *length);
    corpus->at += sizeof *length;
    if (corpus->length - corpus->at < *length)
        fail("a record is cut off");
    record = malloc(*length);
    if (!record)
        fail("out of memory");
    if (*length < VNET_BYTES)
        fail("a record is too short");
    memcpy(record, corpus->bytes + corpus->at, *length);
    corpus->at += *length;
    return record;
}

/* Reads every byte that was emitted. */
static uint64_t take_sent(struct lbfwd_worker *w)
{
    uint64_t sum = 0;

    for (uint32_t ring = 0; ring < TX_RINGS; ring++) {
        const uint8_t *frame;
        uint32_t length;

        for (uint32_t n = 0; !lbfwd_worker_sent(w, ring, n, &frame, &length); n++)
            sum = checksum_add(sum, frame, length);
        lbfwd_worker_sent_clear(w, ring);
    }
    return sum;
}

/* As a ring hands them over: `most` frames at once, or as many as there are. Returns how many. */
static uint32_t replay_burst(struct lbfwd_worker *w, struct corpus *corpus, uint32_t most)
{
    static uint64_t now_ms = BEGIN_MS; /* a millisecond a burst */
    struct lbfwd_frame frames[LBFWD_BURST];
    uint8_t *records[LBFWD_BURST];
    uint32_t length, n = 0;

    for (; n < most && (records[n] = next_record(corpus, &length)); n++)
        frames[n] = frame_in_memory(records[n], length);
    begin_references(w);
    w->now_ms = now_ms++;
    ADD_COUNT(w->slot->seen, n);
    tick(w);
    forward_received(w, frames, n);
    end_references(w);
    take_sent(w);
    for (uint32_t i = 0; i < n; i++)
        free(records[i]);
    return n;
}

/* Bursts of every size: frames alone, and frames among others. */
static void replay(struct lbfwd_worker *w, struct corpus *corpus)
{
    uint32_t size = 1;

    while (replay_burst(w, corpus, size))
        size = size % LBFWD_BURST + 1;
}

/* Every frame that was seen is in one counter, or waits for its datagram's first. */
static void check_counters(const struct lbfwd_worker *w)
{
    uint64_t counted = 0;

    for (uint32_t i = 0; i < LBFWD_DROP_COUNT; i++)
        counted += w->counters->drops[i];
    for (uint32_t i = 0; i < LBFWD_MAX_SERVICES; i++)
        counted += w->counters->services[i].packets;
    for (uint32_t i = 0; i < w->fragments->count; i++)
        counted += w->fragments->held_keys[(w->fragments->oldest + i) % HELD_MOST] != 0;
    printf("%llu seen, %llu counted\n", (unsigned long long)w->slot->seen,
           (unsigned long long)counted);
    if (counted != w->slot->seen)
        fail("a packet is in no counter, or in two");
}

static uint64_t next_random(uint64_t *state) /* xorshift64 */
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Words of the snapshot and its rows, or of what lies before it, pools' paths and members among it:
 * mostly small numbers, zeros and ones, as real damage is. */
static void damage(uint8_t *arena, uint64_t offset, uint64_t *random)
{
    const struct lbfwd_snapshot *s = (const void *)(arena + offset);
    uint64_t end = s->services_offset + s->service_slots * sizeof(struct lbfwd_service);
    uint64_t begin = next_random(random) % 4 ? offset + 8 : ARENA_UNIT;
    static const uint32_t values[] = {0, 1, 0x40, 0xffff, 0x7fffffff, 0xffffffff};

    for (uint64_t n = 1 + next_random(random) % 3; n; n--) {
        uint64_t at = begin + next_random(random) % ((end - begin) / 4) * 4;
        uint32_t value = values[next_random(random) % 6];
        if (next_random(random) % 2)
            value = (uint32_t)(next_random(random) % 4096);
        memcpy(arena + at, &value, sizeof value);
    }
}

/* Forwards with a damaged state, if it is accepted. Returns whether it was. */
static int forward_damaged(struct lbfwd_worker *w, const uint8_t *good, struct corpus *corpus,
                           uint64_t *random)
{
    uint64_t offset = offset_of(w->control->published), bytes = w->control->arena_bytes;
    uint8_t *arena = malloc(bytes);
    int accepted;

    if (!arena)
        fail("out of memory");
    memcpy(arena, good, bytes);
    damage(arena, offset, random);
    accepted = !snapshot_check(arena, bytes, offset);
    if (accepted) {
        w->view = view_of(arena, offset);
        if (corpus->at == corpus->length)
            corpus->at = 0;
        replay_burst(w, corpus, FRAMES_A_ROUND);
    }
    free(arena);
    return accepted;
}

static void damage_rounds(struct lbfwd_worker *w, struct corpus *corpus, uint64_t random,
                          uint64_t rounds)
{
    uint64_t accepted = 0;

    corpus->at = 0;
    for (uint64_t n = 0; n < rounds; n++)
        accepted += (uint64_t)forward_damaged(w, w->arena, corpus, &random);
    printf("%llu of %llu damaged states accepted\n", (unsigned long long)accepted,
           (unsigned long long)rounds);
    w->view = view_of(w->arena, offset_of(w->published));
}

int main(int argc, char **argv)
{
    struct lbfwd_geometry tx = {.version = 3, .block_bytes = 1 << 17, .blocks = TX_BLOCKS,
                                .frame_bytes = 2048};
    static const uint8_t token[16]; /* of marked packets: they are looked for all the time */
    struct lbfwd_worker *w;
    struct corpus corpus;

    if (argc != 8)
        fail("usage: replay CONTROL ARENA COUNTERS FLOWS FRAMES SEED ROUNDS");
    if (lbfwd_worker_new(&w, 0, open_file(argv[1], O_RDWR), open_file(argv[2], O_RDONLY),
                         open_file(argv[3], O_RDWR), open_file(argv[4], O_RDWR)))
        fail("the worker refuses the files");
    for (uint32_t ring = 0; ring < TX_RINGS; ring++)
        if (lbfwd_worker_add_tx(w, ring, -1, &tx))
            fail("no TX ring");
    lbfwd_live_arm(w->control, token, UINT64_MAX);
    corpus = read_corpus(argv[5]);
    replay(w, &corpus);
    check_counters(w);
    damage_rounds(w, &corpus, strtoull(argv[6], NULL, 0) | 1, strtoull(argv[7], NULL, 0));
    check_counters(w);
    free(corpus.bytes);
    lbfwd_worker_free(w);
    return 0;
}
