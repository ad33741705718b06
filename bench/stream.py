"""A stream of numbered frames: when each was sent and when it arrived. Pure.

Times are CLOCK_REALTIME in nanoseconds, both ends on one machine and so on one clock.
"""

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from typing import Self

NS_A_MS = 1_000_000
QUANTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "max": 1.0}


@dataclass(frozen=True)
class Stream:
    """Two times a frame, in the order of sending; ``arrived`` 0: it did not arrive."""

    sent: Sequence[int]
    arrived: Sequence[int]

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read what probe.c writes: pairs of 64-bit numbers. Raises ValueError on a part of one."""
        if len(data) % 16:
            raise ValueError(f"{len(data)} bytes are no whole number of pairs")
        numbers = array("Q", data)
        return cls(numbers[0::2], numbers[1::2])

    def between(self, begin_ns: int, end_ns: int) -> Self:
        """Return the part that was sent from one time until before another."""
        first, last = bisect_left(self.sent, begin_ns), bisect_left(self.sent, end_ns)
        return type(self)(self.sent[first:last], self.arrived[first:last])

    @property
    def lost(self) -> int:
        """Frames that did not arrive."""
        return sum(1 for arrived in self.arrived if not arrived)

    def delays_ms(self) -> list[float]:
        """Return how long each frame that arrived was on its way, ascending."""
        pairs = zip(self.sent, self.arrived, strict=True)
        return sorted((arrived - sent) / NS_A_MS for sent, arrived in pairs if arrived)

    def gaps_ms(self, least_ms: float) -> list[float]:
        """Return the gaps between bursts, ascending: arrivals closer than that are one burst."""
        times = sorted(arrived for arrived in self.arrived if arrived)
        gaps = ((after - before) / NS_A_MS for before, after in pairwise(times))
        return sorted(gap for gap in gaps if gap >= least_ms)


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the nearest-rank quantile of ascending values. Raises ValueError without any."""
    if not ordered:
        raise ValueError("nothing was measured")
    return ordered[max(ceil(share * len(ordered)), 1) - 1]


def quantiles(ordered: Sequence[float]) -> dict[str, float]:
    """Return the quantiles that we report."""
    return {name: quantile(ordered, share) for name, share in QUANTILES.items()}
