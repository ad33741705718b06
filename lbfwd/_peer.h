/* Fragments across nodes (paper section 4.3): routers may give a datagram's fragments to different
 * nodes, for later ones have no ports. So every fragment goes to the node that source, destination and
 * protocol name among the fleet's live ones, inside GRE with a mark: it travels one hop at most.
 * docs/fleet.md. */
#ifndef LBFWD_PEER_H
#define LBFWD_PEER_H

#include "_job.h"
#include "_worker.h"

/* ---- to another node ---- */

/* The hash of a flow without ports. In IPv6 the protocol is no part: only the first fragment knows it
 * (RFC 8200 section 4.5). */
static inline uint64_t fragment_hash(const struct lbfwd_packet *packet, const struct lbfwd_siphash *seed)
{
    uint32_t addresses = packet->key_length - LBFWD_KEY_END;
    uint8_t protocol = packet->family == 4 ? packet->protocol : 0, key[40];
    uint64_t last = siphash_last(0, protocol, packet->key_length);

    memcpy(key, packet->ip + (packet->family == 4 ? 12 : 8), addresses);
    memcpy(key + addresses, &last, sizeof last);
    return flow_hash(key, key_words(packet->family), seed);
}

/* The way to the node that the hash names; NULL: that is this one, or it cannot be reached. */
static inline const struct lbfwd_path *path_to_peer(const struct lbfwd_view *view, uint64_t hash)
{
    const struct lbfwd_snapshot *s = view->snapshot;
    uint32_t number = view->peer_table[flow_bucket(hash, s->peer_table_size)];
    const struct lbfwd_peer *peer = &view->peers[number];

    if (number >= s->peers || number == s->here || !peer->path_count)
        return NULL;
    return &view->peer_paths[peer->path_first +
                             (uint32_t)(((hash & 0xffffffff) * peer->path_count) >> 32)];
}

/* Whether a fragment is for another node; then the job has all that it takes to send it there. */
static inline int goes_to_peer(const struct lbfwd_worker *w, struct lbfwd_job *job)
{
    if (!job->packet.fragmented || job->frame->from_peer || !w->view.snapshot->peer_table_size)
        return 0;
    job->hash = fragment_hash(&job->packet, &w->view.seed);
    job->path = path_to_peer(&w->view, job->hash);
    job->counter = OWNER_PEER;
    job->backend = LBFWD_MAX_BACKENDS;
    return job->path != NULL;
}

/* What goes to another node has a path, and no service. */
static inline int is_for_peer(const struct lbfwd_job *job)
{
    return job->path && !job->service;
}

/* ---- from another node ---- */

static inline int is_address_of(const struct lbfwd_peer *peer, const uint8_t *address, uint8_t family)
{
    if (family == 4)
        return peer->has_ipv4 && load_u32(address) == load_u32(peer->ipv4);
    return peer->has_ipv6 && !memcmp(address, peer->ipv6, sizeof peer->ipv6);
}

/* GRE to this node itself. */
static inline int is_gre_to_this_node(const struct lbfwd_view *view, const struct lbfwd_packet *packet)
{
    const struct lbfwd_snapshot *s = view->snapshot;

    return s->peers && packet->protocol == IPPROTO_GRE &&
           is_address_of(&view->peers[s->here], destination_of(packet), packet->family);
}

static inline int is_from_fleet(const struct lbfwd_view *view, const struct lbfwd_packet *packet)
{
    const uint8_t *source = packet->ip + (packet->family == 4 ? 12 : 8);

    for (uint32_t i = 0; i < view->snapshot->peers; i++)
        if (i != view->snapshot->here && is_address_of(&view->peers[i], source, packet->family))
            return 1;
    return 0;
}

/* Takes off what another node has put around a fragment. The frame then begins 14 bytes before the
 * inner packet: where an Ethernet header has its type, GRE has the same number. */
static inline enum lbfwd_drop unwrap_from_peer(const struct lbfwd_view *view,
                                               const struct lbfwd_packet *outer,
                                               struct lbfwd_frame *frame)
{
    uint32_t header = outer->family == 4 ? IPV4_BYTES : IPV6_BYTES, skipped = header + GRE_BYTES;
    const uint8_t *gre = outer->ip + header;
    uint16_t type;

    if (!is_from_fleet(view, outer))
        return LBFWD_DROP_PEER_UNKNOWN;
    if (outer->l4_offset != header || outer->fragmented)
        return LBFWD_DROP_PEER_MALFORMED;
    if (outer->ip_length < skipped)
        return LBFWD_DROP_TRUNCATED;
    type = load_be16(gre + 2);
    if (load_be16(gre) != LBFWD_PEER_MARK || (type != ETHERTYPE_IPV4 && type != ETHERTYPE_IPV6))
        return LBFWD_DROP_PEER_MALFORMED;
    frame->data += skipped;
    frame->length = frame->wire_length = ETHERNET_BYTES + outer->ip_length - skipped;
    frame->from_peer = 1;
    return LBFWD_DROP_NONE;
}

#endif
