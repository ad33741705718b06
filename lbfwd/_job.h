/* A packet of a burst, and what the steps have found out about it. A burst goes through each step as
 * a whole: while one packet is looked at, the memory that the next ones need is on its way. */
#ifndef LBFWD_JOB_H
#define LBFWD_JOB_H

#include "_flow.h"
#include "_parse.h"

struct lbfwd_job {
    struct lbfwd_frame *frame;           /* what comes from another node is unwrapped in place */
    const struct lbfwd_service *service; /* NULL: it has none, or needs none (see packet.kind,
                                          * and _peer.h: for another node, where there is a path) */
    const struct lbfwd_path *path;       /* NULL: the backend has none */
    struct lbfwd_flow_entry *entry;      /* the flow's, when the look-up found one */
    struct lbfwd_flow_home home;
    uint64_t hash;                       /* affinity hash */
    uint32_t counter;                    /* of the service */
    uint32_t backend;                    /* LBFWD_MAX_BACKENDS: none */
    enum lbfwd_drop reason;
    struct lbfwd_packet packet;
};

#endif
