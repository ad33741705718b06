/*
 * The contract between C and Python, continued as in _ring.h: the nodes of the fleet. A snapshot has an
 * array of them in ascending order of their names, this node at `here`; the paths to the others, one
 * behind the other; and a Maglev table over the live ones: uint16_t[peer_table_size], each an index
 * into the array.
 */

/* What GRE between nodes says in its first 16 bits, and says nothing else: bit 7, the lowest of RFC
 * 1701's recursion control, and one that RFC 2784 section 2.3 has receivers ignore. */
#define LBFWD_PEER_MARK 256
#define LBFWD_MAX_PEERS 256

struct lbfwd_peer {
    uint8_t ipv4[4];         /* network order */
    uint8_t ipv6[16];
    uint8_t has_ipv4;
    uint8_t has_ipv6;
    uint16_t path_count;     /* 0: itself, or no next hop */
    uint32_t path_first;     /* index into the paths to peers */
    uint32_t unused;
};
