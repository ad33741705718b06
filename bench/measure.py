"""Medians, their spread, and ratios of what was measured side by side."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import comb

COVERAGE = 0.93  # of an interval: five rounds, from the least to the greatest, reach 0.9375


@dataclass(frozen=True)
class Figure:
    """A median and an interval that holds the true one in at least 93 of 100 runs.

    The interval is that of the order statistics of n rounds (binomial, no assumption about the
    distribution). Fewer than five rounds have no such interval: theirs is from least to greatest.
    """

    median: float
    low: float
    high: float
    rounds: int

    def __str__(self) -> str:
        return f"{self.median:.4g} ({self.low:.4g} to {self.high:.4g})"

    def plain(self) -> dict[str, float]:
        """Return it for JSON."""
        return asdict(self)


def depth(rounds: int) -> int:
    """Return how many extreme values may be left out on each side."""
    outside, left_out = 0.0, 0
    while left_out < rounds // 2:
        outside += 2 * comb(rounds, left_out) / 2**rounds
        if outside > 1 - COVERAGE:
            break
        left_out += 1
    return max(left_out - 1, 0)


def figure(values: Sequence[float]) -> Figure:
    """Summarize what the rounds gave. Raises ValueError without any."""
    if not values:
        raise ValueError("nothing was measured")
    ordered = sorted(values)
    left_out = depth(len(ordered))
    return Figure(
        statistics.median(ordered), ordered[left_out], ordered[-1 - left_out], len(ordered)
    )


def paired(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, ...]:
    """Return the ratio of each round: both of a pair met the same noise."""
    return tuple(a / b for a, b in zip(ours, theirs, strict=True))
