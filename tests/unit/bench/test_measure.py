"""Medians and their intervals, against the binomial distribution itself."""

import random
import statistics
from itertools import pairwise

import pytest

from bench.measure import COVERAGE, depth, figure, paired


@pytest.mark.parametrize("rounds", range(5, 40))
def test_an_interval_holds_the_median_often_enough(rounds: int) -> None:
    """Of n draws the k-th to the k-th last hold the median iff k to n - k are below it."""
    left_out = depth(rounds)
    rng = random.Random(rounds)
    tries = 4000
    held = 0
    for _ in range(tries):
        below = sum(rng.random() < 0.5 for _ in range(rounds))
        held += left_out < below < rounds - left_out
    assert held / tries > COVERAGE - 0.02


def test_more_rounds_never_leave_out_less() -> None:
    assert all(a <= b for a, b in pairwise(depth(rounds) for rounds in range(1, 60)))


def test_a_figure_is_the_median_and_its_interval() -> None:
    values = [5.0, 1.0, 9.0, 3.0, 7.0]
    summary = figure(values)
    assert (summary.median, summary.low, summary.high, summary.rounds) == (5.0, 1.0, 9.0, 5)
    assert figure(list(range(21))).median == statistics.median(range(21))


def test_nothing_measured_is_no_figure() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        figure([])


def test_ratios_are_taken_round_by_round() -> None:
    assert paired([2.0, 9.0], [1.0, 3.0]) == (2.0, 3.0)
    with pytest.raises(ValueError, match="zip"):
        paired([1.0], [1.0, 2.0])
