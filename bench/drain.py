"""A forwarder's own rate: let it empty a full ring while nothing else works.

With two cores the generator and the receive softirq are the slower side, so a steady rate says
little about a forwarder. Here it stands still while its ring is filled; then it goes on alone, and
the middle of what it does is timed.
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

from bench.contestants import REAL_TIME, Contestant
from lbfwd.demo.lab import LabError

BEGIN, END = 0.25, 0.75  # of the packets: what is between is timed
SAMPLE_S = 0.002
DRAIN_S = 10.0


@dataclass(frozen=True)
class Sample:
    """How far a forwarder was at a time.

    ``busy_ns``: the time less that in which other processes had its core; packets: since it began.
    """

    busy_ns: float
    packets: int


def time_at(samples: Sequence[Sample], packets: float) -> float:
    """Return when so many packets had left, between samples by straight lines.

    Raises ValueError when there never were so many.
    """
    for before, after in pairwise(samples):
        if before.packets <= packets <= after.packets and before.packets < after.packets:
            share = (packets - before.packets) / (after.packets - before.packets)
            return before.busy_ns + share * (after.busy_ns - before.busy_ns)
    raise ValueError(f"{packets:g} packets were never reached")


def middle_rate(samples: Sequence[Sample], packets: int) -> float:
    """Return packets a second between the first and the last quarter of ``packets``."""
    begin, end = time_at(samples, BEGIN * packets), time_at(samples, END * packets)
    return (END - BEGIN) * packets * 1e9 / (end - begin)


def drain(contestant: Contestant, packets: int) -> float:
    """Let a frozen contestant forward the packets in its rings, then freeze it again.

    Returns its rate, packets a second. Raises LabError when not all of them leave.
    """
    sent, samples = contestant.sent, [Sample(0, 0)]
    before, waited = sent.packets(), contestant.waited_ns()
    begin, deadline_s = time.monotonic_ns(), time.monotonic() + DRAIN_S
    with ahead_of_forwarders():
        contestant.release()
        while samples[-1].packets < packets:
            if time.monotonic() > deadline_s:
                raise LabError(
                    f"{contestant.name}: {samples[-1].packets} of {packets} packets left"
                )
            time.sleep(SAMPLE_S)
            busy_ns = time.monotonic_ns() - begin - (contestant.waited_ns() - waited)
            samples.append(Sample(busy_ns, sent.packets() - before))
        contestant.freeze()
    return middle_rate(samples, packets)


@contextmanager
def ahead_of_forwarders() -> Iterator[None]:
    """Let this process look on in time, also from a core that forwards."""
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(REAL_TIME + 1))
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
