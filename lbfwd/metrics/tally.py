"""Counts of what happens in the supervisor itself: probes and reloads. Plain values, no I/O.

They are written on the event loop and read by the thread that makes a scrape's text: what that
reads may be one probe old.
"""

import time
from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from lbfwd.config import ConfigError
from lbfwd.health.outcome import Outcome
from lbfwd.supervisor.errors import Refused

# Upper bounds in seconds: a LAN answers within one, a timeout is 60 s at most.
PROBE_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)

ReloadOutcome = Literal["succeeded", "refused", "failed"]
RELOAD_OUTCOMES: tuple[ReloadOutcome, ...] = ("succeeded", "refused", "failed")


@dataclass
class PoolProbes:
    """A pool's probes: by outcome, and how long they took, by ``PROBE_BOUNDS_S`` and above."""

    outcomes: dict[str, int] = field(default_factory=lambda: {"passed": 0})
    durations: list[int] = field(default_factory=lambda: [0] * (len(PROBE_BOUNDS_S) + 1))
    total_s: float = 0.0


class ProbeTally:
    """Counts probes by pool; one that serves several pools counts in each."""

    def __init__(self) -> None:
        """Know no pool."""
        self._pools: dict[str, PoolProbes] = {}

    def keep(self, pools: Collection[str]) -> None:
        """Count for these pools from now on; what was counted for others is forgotten."""
        self._pools = {pool: self._pools.get(pool) or PoolProbes() for pool in pools}

    def count(self, pools: Collection[str], outcome: Outcome) -> None:
        """Count a probe; pools that are not kept are passed over."""
        bucket = bisect_left(PROBE_BOUNDS_S, outcome.duration_s)
        for pool in pools:
            probes = self._pools.get(pool)
            if probes is not None:
                probes.outcomes[outcome.name] = probes.outcomes.get(outcome.name, 0) + 1
                probes.durations[bucket] += 1
                probes.total_s += outcome.duration_s

    def by_pool(self) -> Mapping[str, PoolProbes]:
        """Return the counts."""
        return self._pools


class ReloadTally:
    """Counts reloads by outcome and remembers the last."""

    def __init__(self) -> None:
        """Begin with the configuration that the node was started with: taken up now."""
        self.outcomes: dict[ReloadOutcome, int] = dict.fromkeys(RELOAD_OUTCOMES, 0)
        self.last_succeeded = True
        self.succeeded_at = time.time()
        self.last_duration_s = 0.0

    @contextmanager
    def count(self) -> Iterator[None]:
        """Count what is done within as one reload, by how it ends."""
        began = time.monotonic()
        try:
            yield
        except (ConfigError, Refused):
            self._count("refused", began)
            raise
        except Exception:
            self._count("failed", began)
            raise
        self._count("succeeded", began)
        self.succeeded_at = time.time()

    def _count(self, outcome: ReloadOutcome, began: float) -> None:
        self.outcomes[outcome] += 1
        self.last_succeeded = outcome == "succeeded"
        self.last_duration_s = time.monotonic() - began
