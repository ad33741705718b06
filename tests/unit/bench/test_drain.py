"""A drain's samples and the rate in their middle."""

import pytest

from bench.drain import Sample, middle_rate, time_at

MS = 1_000_000


def test_only_the_middle_half_counts() -> None:
    # A slow first and last quarter; 500 packets in 1 ms between.
    samples = [Sample(0, 0), Sample(9 * MS, 250), Sample(10 * MS, 750), Sample(50 * MS, 1000)]
    assert middle_rate(samples, 1000) == pytest.approx(500_000)


def test_samples_that_do_not_meet_the_quarters_are_joined_by_lines() -> None:
    samples = [Sample(0, 0), Sample(2 * MS, 500), Sample(6 * MS, 1000)]
    assert time_at(samples, 250) == pytest.approx(1 * MS)
    assert time_at(samples, 750) == pytest.approx(4 * MS)
    assert middle_rate(samples, 1000) == pytest.approx(500 / 0.003)


def test_a_pause_before_the_middle_does_not_count() -> None:
    samples = [Sample(0, 0), Sample(90 * MS, 0), Sample(91 * MS, 1000)]
    assert middle_rate(samples, 1000) == pytest.approx(1_000_000)


def test_packets_that_never_left_have_no_time() -> None:
    with pytest.raises(ValueError, match="750 packets were never reached"):
        middle_rate([Sample(0, 0), Sample(MS, 500)], 1000)
