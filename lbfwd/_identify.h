/* What a packet is, for which service and of which flow: the first step of a burst. */
#ifndef LBFWD_IDENTIFY_H
#define LBFWD_IDENTIFY_H

#include "_icmp.h"
#include "_job.h"
#include "_lanes.h"
#include "_peer.h"
#include "_plain.h"
#include "_worker.h"

#define ECN_CE 3   /* RFC 3168 section 5: congestion experienced */
#define GATHERED 8 /* with all of a burst, what is asked for at its end would come too late */

/* Packets of one family whose keys are hashed together. */
struct lbfwd_family {
    struct lbfwd_job *jobs[GATHERED];
    uint32_t count;
    struct lbfwd_recent recent;
};

struct lbfwd_burst { struct lbfwd_family ipv4, ipv6; };

static inline void begin_burst(struct lbfwd_burst *burst)
{
    burst->ipv4.count = burst->ipv6.count = 0;
    burst->ipv4.recent = burst->ipv6.recent = (struct lbfwd_recent){.door = NO_DOOR};
}

/* As many as are gathered. */
AVX2 static void hash_lanes(const struct lbfwd_worker *w, struct lbfwd_job *const jobs[], uint32_t words)
{
    for (uint32_t i = 0; i < GATHERED; i += LBFWD_LANES, jobs += LBFWD_LANES) {
        const uint8_t *keys[LBFWD_LANES] = {jobs[0]->packet.key, jobs[1]->packet.key,
                                            jobs[2]->packet.key, jobs[3]->packet.key};
        uint64_t hashes[LBFWD_LANES];
        flow_hash_lanes(keys, words, &w->view.seed, hashes);
        for (uint32_t lane = 0; lane < LBFWD_LANES; lane++)
            jobs[lane]->hash = hashes[lane];
    }
}

/* Asks for the memory where the flow's entry is. */
STEP void prefetch_entry(const struct lbfwd_worker *w, struct lbfwd_job *job)
{
    job->home = flow_home(&w->flows, flow_key(job->hash, job->counter));
    __builtin_prefetch(&w->flows.own[job->home.first]);
}

/* The flows' hashes, and the memory where their entries are. */
STEP void hash_family(struct lbfwd_worker *w, struct lbfwd_family *family, uint32_t words)
{
    if (LIKELY(w->has_lanes && family->count == GATHERED))
        hash_lanes(w, family->jobs, words);
    else
        for (uint32_t i = 0; i < family->count; i++)
            family->jobs[i]->hash = flow_hash(family->jobs[i]->packet.key, words, &w->view.seed);
    for (uint32_t i = 0; i < family->count; i++)
        prefetch_entry(w, family->jobs[i]);
    family->count = 0;
}

/* The packet's service. With source affinity ports and protocol are 0 in the flow's key. */
STEP void serve(struct lbfwd_family *family, struct lbfwd_job *job, const struct lbfwd_service *service)
{
    family->jobs[family->count++] = job;
    job->service = service;
    job->counter = service->counter;
    if (UNLIKELY(service->affinity == LBFWD_AFFINITY_SOURCE))
        end_key(&job->packet, 0, 0);
}

/* The VIP that a packet is for: the packet in the frame, or that in GRE from another node. That it met
 * congestion between the nodes, the next outer header tells: RFC 6040 section 4.2. */
static inline enum lbfwd_drop find_vip(const struct lbfwd_worker *w, struct lbfwd_job *job,
                                       const struct lbfwd_vip **vip)
{
    struct lbfwd_packet *packet = &job->packet;
    enum lbfwd_drop reason = parse_ip(job->frame, packet);
    int congested;

    if (reason)
        return reason;
    if (!w->published)
        return LBFWD_DROP_NO_VIP;
    *vip = probe_vip(&w->view, vip_of(packet, packet->family), packet->family);
    if (LIKELY(*vip != NULL))
        return LBFWD_DROP_NONE;
    if (!is_gre_to_this_node(&w->view, packet))
        return LBFWD_DROP_NO_VIP;
    congested = (packet->tos & ECN_CE) == ECN_CE;
    if ((reason = unwrap_from_peer(&w->view, packet, job->frame)) ||
        (reason = parse_ip(job->frame, packet)))
        return reason;
    if (congested)
        packet->tos |= ECN_CE;
    *vip = probe_vip(&w->view, vip_of(packet, packet->family), packet->family);
    return *vip ? LBFWD_DROP_NONE : LBFWD_DROP_NO_VIP;
}

/* What is not plain: what it is, or why it goes no further. */
RARE enum lbfwd_drop identify_unusual(struct lbfwd_worker *w, struct lbfwd_job *job,
                                      struct lbfwd_burst *burst)
{
    struct lbfwd_packet *packet = &job->packet;
    const struct lbfwd_service *service;
    const struct lbfwd_vip *vip;
    enum lbfwd_drop reason = find_vip(w, job, &vip);

    if (reason || (reason = parse_transport(packet)))
        return reason;
    if (job->frame->from_peer && !packet->fragmented)
        return LBFWD_DROP_PEER_NOT_FRAGMENT;
    if (is_unfinished_fragment(job->frame, packet))
        return LBFWD_DROP_BAD_OFFLOAD;
    if (goes_to_peer(w, job))
        return LBFWD_DROP_NONE;
    if (!has_ports_of_its_flow(packet))
        return LBFWD_DROP_NONE;
    if (!(service = find_service(&w->view, vip, packet)))
        return packet->kind == LBFWD_KIND_FLOW ? LBFWD_DROP_NO_SERVICE : LBFWD_DROP_ICMP_UNMATCHED;
    serve(packet->family == 4 ? &burst->ipv4 : &burst->ipv6, job, service);
    return LBFWD_DROP_NONE;
}

/* A plain packet's service, when it is not the last one's. */
static __attribute__((noinline)) enum lbfwd_drop look_up(const struct lbfwd_worker *w,
                                                         struct lbfwd_job *job,
                                                         struct lbfwd_family *family)
{
    struct lbfwd_packet *packet = &job->packet;
    struct lbfwd_address address = vip_of(packet, packet->family);
    const struct lbfwd_service *service;
    const struct lbfwd_vip *vip;

    packet->dst_port = load_be16(packet->ip + packet->l4_offset + 2);
    if (!w->published || !(vip = probe_vip(&w->view, address, packet->family)))
        return LBFWD_DROP_NO_VIP;
    if (!(service = find_service(&w->view, vip, packet)))
        return LBFWD_DROP_NO_SERVICE;
    family->recent = (struct lbfwd_recent){address, door_of(packet, packet->family), service};
    serve(family, job, service);
    return LBFWD_DROP_NONE;
}

/* Most often it is. */
STEP enum lbfwd_drop look_up_recent(const struct lbfwd_worker *w, struct lbfwd_job *job,
                                  struct lbfwd_family *family, uint8_t version)
{
    const struct lbfwd_recent *recent = &family->recent;

    if (UNLIKELY(!is_recent(recent, &job->packet, version)))
        return look_up(w, job, family);
    serve(family, job, recent->service);
    return LBFWD_DROP_NONE;
}

/* What the packet is, and for which service. */
STEP enum lbfwd_drop identify(struct lbfwd_worker *w, struct lbfwd_job *job,
                              struct lbfwd_burst *burst)
{
    const struct lbfwd_frame *frame = job->frame;

    if (LIKELY(is_plain_frame(frame))) {
        uint16_t ethertype = load_u16(frame->data + 12);
        if (ethertype == __builtin_bswap16(ETHERTYPE_IPV4) && parse_plain_ipv4(frame, &job->packet))
            return look_up_recent(w, job, &burst->ipv4, 4);
        if (ethertype == __builtin_bswap16(ETHERTYPE_IPV6) && parse_plain_ipv6(frame, &job->packet))
            return look_up_recent(w, job, &burst->ipv6, 6);
    }
    return identify_unusual(w, job, burst);
}

static void identify_all(struct lbfwd_worker *w, struct lbfwd_job *jobs, uint32_t n)
{
    struct lbfwd_burst burst;

    begin_burst(&burst);
    for (uint32_t i = 0; i < n; i++) {
        struct lbfwd_job *job = &jobs[i];
        job->service = NULL;
        job->path = NULL;
        job->reason = identify(w, job, &burst);
        if (UNLIKELY(burst.ipv4.count == GATHERED))
            hash_family(w, &burst.ipv4, LBFWD_KEY4_WORDS);
        if (UNLIKELY(burst.ipv6.count == GATHERED))
            hash_family(w, &burst.ipv6, LBFWD_KEY6_WORDS);
    }
    hash_family(w, &burst.ipv4, LBFWD_KEY4_WORDS);
    hash_family(w, &burst.ipv6, LBFWD_KEY6_WORDS);
}

#endif
