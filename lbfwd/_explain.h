/* What would become of a packet, and why: it goes through the steps of the packet path itself, in a
 * rehearsal (a worker whose every write stays in memory of its own), and what they find is noted. */
#ifndef LBFWD_EXPLAIN_H
#define LBFWD_EXPLAIN_H

#include "_choose.h"

/* The flow's entry in one worker's table. */
static inline struct lbfwd_sighting sight(const struct lbfwd_worker *w, const struct lbfwd_job *job,
                                          const struct lbfwd_flow_context *context, uint32_t worker)
{
    const struct lbfwd_flow_bucket *region = flow_region(&w->flows, worker);
    uint8_t bucket = 1;
    uint64_t value =
        read_foreign(&region[job->home.first], job->home.key, job->counter, context);

    if (!value) {
        bucket = 2;
        value = read_foreign(&region[second_of(&w->flows, &job->home)], job->home.key, job->counter,
                             context);
    }
    if (!value)
        return (struct lbfwd_sighting){0};
    return (struct lbfwd_sighting){
        .bucket = bucket, .state = (uint8_t)flow_state(value),
        .usable = (uint8_t)may_serve(&w->view, job->service, value),
        .age_s = flow_age_s(value, context->now_s),
        .incarnation = (uint16_t)flow_incarnation(value), .backend = flow_backend(value)};
}

/* Before the choice, which makes or renews an entry: the flow's service, hash and entries. */
static inline void explain_flow(const struct lbfwd_worker *w, const struct lbfwd_job *job,
                                struct lbfwd_explanation *out)
{
    const struct lbfwd_service *service = job->service;
    struct lbfwd_flow_context context = flow_context(w);

    out->service = service->counter;
    out->hash = job->hash;
    out->key_length = job->packet.key_length;
    memcpy(out->key, job->packet.key, sizeof out->key);
    out->table_size = service->table_size;
    out->bucket = service->table_size ? flow_bucket(job->hash, service->table_size) : 0;
    out->table_backend = maglev_backend(&w->view, service, job->hash);
    for (uint32_t worker = 0; worker < w->flows.workers; worker++)
        out->workers[worker] = sight(w, job, &context, worker);
}

/* When the packet's way has ended. */
static inline void explain_end(const struct lbfwd_worker *w, const struct lbfwd_job *job,
                               enum lbfwd_drop reason, struct lbfwd_explanation *out)
{
    _Static_assert(sizeof out->events == sizeof w->counters->events, "one for each event");
    out->backend = job->backend;
    out->reason = reason;
    memcpy(out->events, w->counters->events, sizeof out->events);
}

static inline void explain_begin(struct lbfwd_worker *w, struct lbfwd_explanation *out)
{
    *out = (struct lbfwd_explanation){.generation = w->published ? generation_of(w->published) : 0,
                                      .service = LBFWD_MAX_SERVICES,
                                      .table_backend = LBFWD_MAX_BACKENDS};
    memset(w->counters->events, 0, sizeof w->counters->events); /* a rehearsal's own */
}

#endif
