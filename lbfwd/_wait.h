/* A worker that has nothing to do. */
#ifndef LBFWD_WAIT_H
#define LBFWD_WAIT_H

#include "_worker.h"

#define IDLE_WAIT_MS 100     /* the heartbeat moves at least this often */
#define HELD_WAIT_MS 10      /* fragments wait for their first */
#define RETRY_WAIT_MS 1      /* frames wait for the kernel */

static inline int patience_ms(const struct lbfwd_worker *w)
{
    if (w->pending)
        return RETRY_WAIT_MS;
    return w->fragments->count ? HELD_WAIT_MS : IDLE_WAIT_MS;
}

/* Sleeps until there is something to do. While it sleeps the worker refers to no generation. */
static inline enum lbfwd_wake wait_for_work(struct lbfwd_worker *w, int wake_fd)
{
    struct pollfd fds[LBFWD_MAX_RX + 1] = {{.fd = wake_fd, .events = POLLIN}};
    nfds_t count = 1;
    int ready;

    for (uint32_t i = 0; i < LBFWD_MAX_RX; i++)
        if (w->rx[i].map)
            fds[count++] = (struct pollfd){.fd = w->rx[i].fd, .events = POLLIN};
    ADD_COUNT(w->slot->waits, 1);
    end_references(w);
    ready = poll(fds, count, patience_ms(w));
    begin_references(w);
    read_clock(w);
    for (nfds_t i = 1; ready > 0 && i < count; i++)
        if (fds[i].revents & POLLERR)
            clear_error(fds[i].fd);
    if (ready < 0)
        return LBFWD_WAKE_SIGNAL;
    if (fds[0].revents)
        return LBFWD_WAKE_CONTROL;
    synchronize_tx(w);
    return ready ? LBFWD_WAKE_TURN : LBFWD_WAKE_TIMEOUT;
}

#endif
