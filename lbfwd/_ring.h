/*
 * The contract between C and Python. C includes this file and cffi reads it verbatim, so it
 * holds nothing but numbers, enums, structs and prototypes (no include, no guard, no macro).
 *
 * Setup functions return 0 (or a descriptor, or an index) or -errno. Everything that lives in
 * shared memory is laid out here and nowhere else. Names end in the byte order where it is not
 * the host's (_be16, _be32).
 */

#define LBFWD_ABI 6
#define LBFWD_MAX_WORKERS 64
#define LBFWD_MAX_RX 16        /* receiving interfaces */
#define LBFWD_MAX_TX 32        /* output interfaces */
#define LBFWD_MAX_SERVICES 65536
#define LBFWD_MAX_BACKENDS 131072
#define LBFWD_MAX_MEMBERS 65535 /* backends of one pool: a table entry is 16 bits, 0xffff is "none" */
#define LBFWD_NO_MEMBER 65535
#define LBFWD_ARENA_MOST 17179869184 /* bytes; workers map so much once, as addresses only */
#define LBFWD_FLOW_WAYS 4      /* flow table entries in a cache line */
#define LBFWD_BURST 64         /* packets taken from a ring at a time */
#define LBFWD_PATH_HEADER 58   /* Ethernet 14 + IPv6 40 + GRE 4 */
#define LBFWD_TX_OFFSET 48     /* data in a TPACKET_V3 TX slot; the vnet header comes first */
#define LBFWD_MARK_BYTES 24    /* payload of a marked packet: LBFWD_MARK_MAGIC, then a token of 16 bytes */
#define LBFWD_MARK_MAGIC 0x637274647766626c /* "lbfwdtrc" in memory order */

/* Why a packet was not forwarded. Indexes counters, CLI rows, metrics and docs. */
enum lbfwd_drop {
    LBFWD_DROP_NONE,                 /* not a reason: the packet was wrapped */
    LBFWD_DROP_CUT_BY_RING,          /* the ring holds only part of the frame */
    LBFWD_DROP_OTHER_HOST,           /* sent to another station's MAC (promiscuous mode) */
    LBFWD_DROP_VLAN_TAGGED,          /* tagged frame on the parent interface */
    LBFWD_DROP_NOT_IP,
    LBFWD_DROP_TRUNCATED,            /* shorter than its headers say */
    LBFWD_DROP_BAD_IP_HEADER,        /* version, header length or total length impossible */
    LBFWD_DROP_BAD_IP_CHECKSUM,
    LBFWD_DROP_NO_VIP,               /* the destination is no VIP of ours */
    LBFWD_DROP_FRAGMENT,             /* a fragmented ICMP message */
    LBFWD_DROP_FRAGMENT_UNMATCHED,   /* its datagram's first fragment did not come in time */
    LBFWD_DROP_FRAGMENT_NO_ROOM,     /* came before the first, and too many wait already */
    LBFWD_DROP_EXTENSION_HEADER,     /* IPv6 extension header that is not followed */
    LBFWD_DROP_UNSUPPORTED_PROTOCOL, /* neither TCP nor UDP, nor ICMP that is understood */
    LBFWD_DROP_FRAGMENT_TO_PEER,     /* not lost: handed over to another node of the fleet */
    LBFWD_DROP_PEER_UNKNOWN,         /* GRE to this node, but from no node of its fleet */
    LBFWD_DROP_PEER_MALFORMED,       /* GRE from another node, not as nodes send it */
    LBFWD_DROP_PEER_NOT_FRAGMENT,    /* from another node, but no fragment */
    LBFWD_DROP_ICMP_UNMATCHED,       /* an ICMP error that quotes no packet of a flow of ours */
    LBFWD_DROP_ECHO_REFUSED,         /* echo request, and the node is told to drop them */
    LBFWD_DROP_ECHO_ANSWERED,        /* not lost: answered by the node */
    LBFWD_DROP_RATE_LIMITED,         /* the node would have answered, but answered enough */
    LBFWD_DROP_NO_SERVICE,           /* the VIP has no service for this protocol and port */
    LBFWD_DROP_NO_BACKEND,           /* the service has no usable backend */
    LBFWD_DROP_REJECTED,             /* nor that, and the sender was told so */
    LBFWD_DROP_NO_NEXT_HOP,          /* the chosen backend has no resolved next hop */
    LBFWD_DROP_BAD_OFFLOAD,          /* offload metadata that contradict the frame */
    LBFWD_DROP_TOO_BIG,              /* larger than the tunnel's MTU */
    LBFWD_DROP_TX_NOT_READY,         /* the output interface's ring is not attached or synchronized */
    LBFWD_DROP_TX_RING_FULL,
    LBFWD_DROP_TX_REFUSED,           /* the kernel refused the frame */
    LBFWD_DROP_TX_LINK_DOWN,         /* the output link went down before the frame was sent */
    LBFWD_DROP_WORKER_DIED,          /* was in the hands of a worker that died */
    LBFWD_DROP_COUNT                 /* not a reason: how many there are */
};

/* What happened on the way, beside where packets ended. */
enum lbfwd_event {
    LBFWD_EVENT_FLOW_NEW,            /* a flow's first packet made an entry */
    LBFWD_EVENT_FLOW_FOUND_ELSEWHERE, /* in another worker's table */
    LBFWD_EVENT_FLOW_REDIRECTED,     /* its backend may not serve it any more */
    LBFWD_EVENT_FLOW_EVICTED,        /* an unconfirmed entry gave way */
    LBFWD_EVENT_FLOW_TABLE_FULL,     /* no entry gave way: the Maglev table alone decides */
    LBFWD_EVENT_FRAGMENT_HELD,       /* came before its first, waits */
    LBFWD_EVENT_PACKET_SPLIT,        /* fragmented before encapsulation */
    LBFWD_EVENT_TOO_BIG_SENT,        /* the sender was told the MTU */
    LBFWD_EVENT_RESET_SENT,
    LBFWD_EVENT_UNREACHABLE_SENT,
    LBFWD_EVENT_ANSWER_SUPPRESSED,   /* an answer that the rate limit kept back */
    LBFWD_EVENT_ANSWER_LOST,         /* an answer that found no room in the ring */
    LBFWD_EVENT_COUNT                /* not an event: how many there are */
};

enum lbfwd_flow_state {              /* indexes lifetimes */
    LBFWD_FLOW_FREE,
    LBFWD_FLOW_UNCONFIRMED,          /* one packet was seen */
    LBFWD_FLOW_TCP,
    LBFWD_FLOW_UDP,
    LBFWD_FLOW_CLOSING               /* TCP, after FIN or RST */
};

enum lbfwd_echo { LBFWD_ECHO_REPLY, LBFWD_ECHO_BACKEND, LBFWD_ECHO_DROP };
enum lbfwd_empty { LBFWD_EMPTY_DROP, LBFWD_EMPTY_REJECT };
enum lbfwd_affinity { LBFWD_AFFINITY_5TUPLE, LBFWD_AFFINITY_SOURCE };

/* ---- shared memory: control file (one page of roots, one slot a worker) ---- */

struct lbfwd_position {      /* where a worker stands in an RX ring, saved before each burst */
    uint64_t ring;           /* inode of the ring's socket: a position means nothing in another */
    uint64_t sequence;       /* V3: sequence number of the block; V2: unused */
    uint32_t index;          /* V3: block; V2: next frame */
    uint32_t done;           /* V3: packets of the block that were taken */
};

struct lbfwd_live {          /* how the last marked packet went; one cache line */
    uint64_t sequence;       /* odd: it is being written; 0: there was none */
    uint64_t token[2];       /* the packet's, as it stands there */
    uint64_t generation;     /* 0: none was published */
    uint64_t at_ms;          /* CLOCK_MONOTONIC */
    uint32_t service;        /* counter, or LBFWD_MAX_SERVICES: none */
    uint32_t backend;        /* slot, or LBFWD_MAX_BACKENDS: none */
    uint32_t incarnation;    /* of the backend */
    uint32_t reason;         /* enum lbfwd_drop */
    uint8_t rx;              /* ring that it came from */
    uint8_t tx;              /* ring that it was for, or LBFWD_MAX_TX: none */
    uint8_t known;           /* 1: a flow table had its flow, and decided */
    uint8_t unused[5];
};

struct lbfwd_slot {          /* written by the slot's worker only; 64-byte aligned */
    uint64_t heartbeat;      /* grows with every burst and every wait */
    uint64_t acknowledged;   /* generation the worker uses */
    uint64_t quiescent;      /* 1 while it waits and holds no reference to any generation */
    uint64_t seen;           /* packets taken from RX rings, super-frames by their segments */
    uint64_t bursts;
    uint64_t waits;
    uint64_t frames;         /* frames taken from RX rings, super-frames as one */
    uint64_t sends;          /* system calls that handed frames to the kernel */
    struct lbfwd_position rx[LBFWD_MAX_RX];
    struct lbfwd_live live;
};

struct lbfwd_control {
    uint64_t magic;
    uint32_t abi;
    uint32_t worker_slots;
    uint64_t bytes;          /* size of this file */
    uint64_t arena_bytes;    /* size of the arena; only grows */
    uint64_t published;      /* generation << 32 | arena offset of the snapshot / 64; 0: none */
    uint64_t live_until_ms;  /* CLOCK_MONOTONIC: workers look for a mark until then; 0: for none */
    uint64_t live_token[2];
    struct lbfwd_slot slots[LBFWD_MAX_WORKERS];
};

/* ---- shared memory: counters file (one block a worker, written by it only) ---- */

struct lbfwd_counter { uint64_t packets; uint64_t bytes; }; /* bytes: IP packet before encapsulation */

struct lbfwd_counters {
    uint64_t drops[64];
    uint64_t events[64];
    uint64_t unused[8192 - 128];      /* a block begins on a page, also where pages have 64 KiB */
    struct lbfwd_counter services[LBFWD_MAX_SERVICES];
    struct lbfwd_counter backends[LBFWD_MAX_BACKENDS];
    uint64_t new_flows_of_services[LBFWD_MAX_SERVICES];   /* each is one LBFWD_EVENT_FLOW_NEW, too */
    uint64_t new_flows_to_backends[LBFWD_MAX_BACKENDS];
};

/* ---- shared memory: flow tables (a page of header, then one region a worker) ---- */

#define LBFWD_FLOWS_HEADER 65536     /* a region begins on a page */

struct lbfwd_flow_entry {    /* 16 bytes; a reader reads key, value, key again */
    uint64_t key;
    uint64_t value;          /* backend, incarnation, service (sealed), state, last seen: _flow.h; 0: free */
};

struct lbfwd_flow_bucket { struct lbfwd_flow_entry ways[LBFWD_FLOW_WAYS]; };

struct lbfwd_flows_header {
    uint64_t magic;
    uint32_t abi;
    uint32_t workers;
    uint32_t buckets;        /* of one region */
    uint32_t unused;
};

struct lbfwd_flow_row {      /* live flows of one service at one backend; live 0: free */
    uint32_t service;        /* slots */
    uint32_t backend;
    uint32_t incarnation;    /* its low bits: those that an entry has room for */
    uint32_t unused;
    uint64_t live;
    uint64_t closing;        /* of them: a FIN or RST was seen */
};

/* ---- shared memory: arena (forwarding states; offsets are from its start, 64-byte aligned) ---- */

struct lbfwd_vip {           /* open addressing; family 0: free */
    uint8_t address[16];     /* network order; IPv4 in the first 4 bytes, the rest 0 */
    uint32_t id;
    uint8_t family;          /* 4 or 6 */
    uint8_t echo_protocol;   /* echo to a backend: this service's; 0: none */
    uint16_t echo_port;
    uint8_t unused[8];
};

struct lbfwd_service {       /* open addressing by (vip, protocol, port); protocol 0: free */
    uint32_t vip;
    uint16_t port;           /* 0: every port */
    uint8_t protocol;
    uint8_t affinity;
    uint32_t counter;        /* index into lbfwd_counters.services */
    uint32_t members;        /* backends in the pool */
    uint64_t table_offset;   /* uint16_t[table_size]: index into the members, or LBFWD_NO_MEMBER */
    uint64_t members_offset; /* uint32_t[members]: backend slots, in ascending order of identity */
    uint32_t table_size;     /* 0: no usable backend */
    uint32_t pool;
    uint8_t empty;           /* enum lbfwd_empty: what to do without a usable backend */
    uint8_t unused[7];
};

struct lbfwd_backend {       /* indexed by backend slot, as counters are */
    uint32_t path_first;     /* offset in the arena / 64: a path is so long */
    uint16_t path_count;     /* 0: no resolved next hop */
    uint16_t unused;
    uint32_t incarnation;    /* a reused slot has another one */
    uint32_t pool;           /* whose backend it is */
};

struct lbfwd_path {          /* one next hop of one backend; one cache line */
    uint8_t header[LBFWD_PATH_HEADER]; /* Ethernet, outer IP (lengths and TOS 0, IPv4 checksum over that), GRE protocol 0 */
    uint8_t header_len;      /* 38: outer IPv4; 58: outer IPv6 */
    uint8_t tx;              /* output interface: index of the TX ring */
    uint16_t mtu;            /* largest outer IP packet */
    uint8_t entropy_bits;    /* so many low bits of the outer source come from the flow hash */
    uint8_t fragments;       /* 1: outer IPv4 without DF, each packet has an identification */
};

struct lbfwd_snapshot {      /* one generation */
    uint64_t magic;
    uint64_t generation;
    uint64_t hash_key[2];    /* the 128-bit secret, as SipHash reads it: two little-endian words */
    uint64_t vips_offset;
    uint64_t services_offset;
    uint64_t backends_offset;
    uint64_t peers_offset, peer_paths_offset, peer_table_offset; /* the fleet: _fleet.h */
    uint32_t vip_slots;      /* power of two, more than the VIPs */
    uint32_t service_slots;  /* power of two, more than the services */
    uint32_t backends;
    uint32_t peers, peer_paths, peer_table_size, here; /* no table: fragments stay here */
    uint16_t lifetimes_s[8]; /* by enum lbfwd_flow_state */
    uint8_t echo;            /* enum lbfwd_echo */
    uint8_t unused[7];
};

/* ---- rings: set-up, by the supervisor ---- */

struct lbfwd_geometry {
    uint32_t version;        /* 2 or 3 */
    uint32_t block_bytes;
    uint32_t blocks;
    uint32_t frame_bytes;
    uint32_t retire_ms;      /* V3 RX only */
};

struct lbfwd_ring_statistics { uint32_t packets; uint32_t drops; uint32_t freezes; };

int lbfwd_packet_socket(void);                        /* a descriptor; protocol 0: receives nothing */
int lbfwd_attach_filter(int fd, const uint64_t *program, uint16_t instructions);
int lbfwd_rx_options(int fd, uint32_t version);
int lbfwd_rx_ring(int fd, const struct lbfwd_geometry *geometry);
int lbfwd_bind(int fd, int ifindex, int receive);     /* receive: ETH_P_ALL, else protocol 0 */
int lbfwd_fanout_join(int fd, int group);             /* group < 0: a new one; returns the group */
int lbfwd_fanout_program(int fd, const uint64_t *program, uint16_t instructions);
int lbfwd_tx_options(int fd, int qdisc_bypass);
int lbfwd_tx_ring(int fd, const struct lbfwd_geometry *geometry);
int lbfwd_send_buffer(int fd, int bytes);             /* forced where allowed; returns bytes in effect */
int lbfwd_statistics(int fd, struct lbfwd_ring_statistics *out); /* since the last call */

/* ---- a worker: borrows rings, forwards ---- */

enum lbfwd_wake { LBFWD_WAKE_TIMEOUT, LBFWD_WAKE_CONTROL, LBFWD_WAKE_SIGNAL, LBFWD_WAKE_TURN };

struct lbfwd_worker;

int lbfwd_worker_new(struct lbfwd_worker **out, uint32_t slot, int control_fd, int arena_fd,
                     int counters_fd, int flows_fd);
void lbfwd_worker_free(struct lbfwd_worker *worker);
int lbfwd_worker_add_rx(struct lbfwd_worker *worker, uint32_t index, int fd,
                        const struct lbfwd_geometry *geometry);
int lbfwd_worker_remove_rx(struct lbfwd_worker *worker, uint32_t index); /* what waits is forwarded first */
int lbfwd_worker_add_tx(struct lbfwd_worker *worker, uint32_t index, int fd,
                        const struct lbfwd_geometry *geometry); /* fd -1: memory, for tests */
int lbfwd_worker_remove_tx(struct lbfwd_worker *worker, uint32_t index);
void lbfwd_worker_retire(struct lbfwd_worker *worker); /* before a planned end: counts fragments that wait */
int lbfwd_worker_recover(struct lbfwd_worker *worker); /* after all rings: counts what the last worker held */
/* Forwards until wake_fd is readable, a signal came, nothing came for a while, or a turn is over. */
int lbfwd_worker_run(struct lbfwd_worker *worker, int wake_fd, uint32_t busy_poll_us);
/* The same path for a frame in memory, at a time of the caller's choice: virtio_net_hdr (10 bytes),
 * then the frame. Answers go to TX ring 0. Returns 0. */
int lbfwd_worker_forward(struct lbfwd_worker *worker, const uint8_t *frame, uint32_t length,
                         uint64_t now_ms);
/* The n-th frame that a memory TX ring took since the last call with n = 0 … count; -ENOENT: no more. */
int lbfwd_worker_sent(struct lbfwd_worker *worker, uint32_t index, uint32_t n,
                      const uint8_t **frame, uint32_t *length);
void lbfwd_worker_sent_clear(struct lbfwd_worker *worker, uint32_t index);
int lbfwd_drop_capabilities(void);                     /* every set, and no way back */

/* ---- forwarding state: written by the supervisor ---- */

int lbfwd_flows_init(void *flows, uint64_t bytes, uint32_t workers, uint32_t buckets);
/* Counts live flows by service and backend into `count` rows, all 0 before, a power of two. Entries
 * live as long as lifetimes_s says at the time now_s (CLOCK_MONOTONIC). -ENOSPC: more rows are needed. */
int lbfwd_flow_census(const void *flows, uint64_t bytes, const uint16_t lifetimes_s[8],
                      uint16_t now_s, struct lbfwd_flow_row *rows, uint32_t count);
/* Live entries in the flow table of one worker, by the same rules. */
int64_t lbfwd_flows_in_use(const void *flows, uint64_t bytes, const uint16_t lifetimes_s[8],
                           uint16_t now_s, uint32_t worker);
int lbfwd_control_init(void *control, uint64_t bytes, uint32_t worker_slots, uint64_t arena_bytes);
int lbfwd_vip_insert(struct lbfwd_vip *vips, uint32_t slots, const struct lbfwd_vip *vip);
int lbfwd_service_insert(struct lbfwd_service *services, uint32_t slots,
                         const struct lbfwd_service *service);
/* All of a snapshot but Maglev entries and members: before it is published. */
int lbfwd_snapshot_check(const void *arena, uint64_t bytes, uint64_t offset);
void lbfwd_publish(struct lbfwd_control *control, uint64_t generation, uint64_t offset);
/* 1 when the slot's worker uses this generation or holds no reference to any. */
int lbfwd_acknowledged(const struct lbfwd_control *control, uint32_t slot, uint64_t generation);

/* Fills table[size] as the paper's section 3.4 says, weighted as docs/architecture.md says.
 * offsets, skips, weights: one a backend, in ascending order of identity. -EINVAL, -ENOMEM. */
int lbfwd_maglev_populate(uint16_t *table, uint32_t size, const uint32_t *offsets,
                          const uint32_t *skips, const uint32_t *weights, uint32_t backends);
/* SipHash-1-3 of a flow key (13 or 37 bytes). */
uint64_t lbfwd_flow_hash(const uint8_t *key, uint32_t length, const uint64_t hash_key[2]);
uint32_t lbfwd_bucket(uint64_t hash, uint32_t table_size);

/* ---- a backend: unwraps GRE in user space ---- */

struct lbfwd_decap_counters { uint64_t packets; uint64_t bytes; uint64_t malformed; uint64_t refused; };

/* Moves GRE packets from a raw socket (family 4 or 6) to a TUN device until wake_fd is readable. */
int lbfwd_decap_run(int raw4_fd, int raw6_fd, int tun_fd, int wake_fd,
                    struct lbfwd_decap_counters *counters);

/* ---- health probes through the tunnel: TUN -> GRE, in user space ---- */

/* packets, bytes: sent; stray: no probe's; too_big: for its path; unsent: refused by the kernel. */
struct lbfwd_probe_counters {
    uint64_t packets;
    uint64_t bytes;
    uint64_t stray;
    uint64_t too_big;
    uint64_t unsent;
};

struct lbfwd_probe;

int lbfwd_probe_new(struct lbfwd_probe **out);
void lbfwd_probe_free(struct lbfwd_probe *probe);
/* From now on packets of this name (source port; identifier of an echo request) take this path. */
void lbfwd_probe_aim(struct lbfwd_probe *probe, uint16_t name, const struct lbfwd_path *path,
                     int ifindex);
void lbfwd_probe_count(const struct lbfwd_probe *probe, struct lbfwd_probe_counters *out);
/* Length of the outer header of an IP packet; 0: it is not to be sent, and was counted. */
uint32_t lbfwd_probe_wrap(struct lbfwd_probe *probe, const uint8_t *packet, uint32_t length,
                          uint8_t header[LBFWD_PATH_HEADER], int *ifindex);
/* Wraps what comes out of the TUN device until wake_fd is readable. */
int lbfwd_probe_run(struct lbfwd_probe *probe, int tun_fd, int packet_fd, int wake_fd);

/* ---- answers: what would become of a packet ---- */

/* A flow's entry in one worker's table. */
struct lbfwd_sighting {
    uint8_t bucket;          /* 1: the flow's first, 2: its second; 0: no entry */
    uint8_t state;           /* enum lbfwd_flow_state */
    uint8_t usable;          /* its backend may serve the service in this generation */
    uint8_t unused;
    uint16_t age_s;
    uint16_t incarnation;    /* its low bits */
    uint32_t backend;
};

struct lbfwd_explanation {   /* a backend: its slot, or LBFWD_MAX_BACKENDS for none */
    uint64_t generation;     /* 0: none is published */
    uint64_t hash;           /* affinity hash */
    uint32_t service;        /* counter, or LBFWD_MAX_SERVICES: it is for none */
    uint32_t table_size;     /* 0: no table, no backend takes part */
    uint32_t bucket;
    uint32_t table_backend;  /* that the table names */
    uint32_t backend;        /* that serves the packet */
    uint32_t reason;         /* enum lbfwd_drop */
    uint32_t key_length;
    uint8_t key[40];         /* flow key, as it was hashed */
    uint64_t events[64];     /* what the packet counts, by enum lbfwd_event */
    struct lbfwd_sighting workers[LBFWD_MAX_WORKERS];
};

/* A worker like the slot's whose every write stays in memory of its own. */
int lbfwd_rehearsal_new(struct lbfwd_worker **out, uint32_t slot, int control_fd, int arena_fd,
                        int counters_fd, int flows_fd);
/* lbfwd_worker_forward that tells how it went; a rehearsal, used once. */
int lbfwd_worker_explain(struct lbfwd_worker *rehearsal, const uint8_t *frame, uint32_t length,
                         uint64_t now_ms, struct lbfwd_explanation *out);

/* ---- answers: the way of a marked packet (lbfwd trace --live) ---- */

/* Has workers look for the token until then (CLOCK_MONOTONIC); 0: for nothing any more. */
void lbfwd_live_arm(struct lbfwd_control *control, const uint8_t token[16], uint64_t until_ms);
/* What a slot's worker found last. -ENOENT: nothing; -EAGAIN: it is being written. */
int lbfwd_live_read(const struct lbfwd_control *control, uint32_t slot, struct lbfwd_live *out);
