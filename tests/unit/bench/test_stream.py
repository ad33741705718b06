"""Streams of probes: what their times say."""

import random
import struct

import pytest

from bench.stream import Stream, quantile, quantiles

MS = 1_000_000


def written(*pairs: tuple[int, int]) -> bytes:
    return b"".join(struct.pack("=QQ", *pair) for pair in pairs)


def test_a_stream_is_read_as_it_was_written() -> None:
    stream = Stream.parse(written((10, 15), (20, 0), (30, 31)))
    assert list(stream.sent) == [10, 20, 30]
    assert list(stream.arrived) == [15, 0, 31]
    assert stream.lost == 1


def test_half_a_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="24 bytes are no whole number of pairs"):
        Stream.parse(written((10, 15), (20, 25))[:-8])


def test_a_part_begins_at_its_first_time_and_ends_before_its_last() -> None:
    stream = Stream.parse(written((10, 11), (20, 21), (30, 0), (40, 41)))
    part = stream.between(20, 40)
    assert (list(part.sent), part.lost) == ([20, 30], 1)
    assert list(stream.between(50, 60).sent) == []


def test_delays_are_those_of_what_arrived_in_ascending_order() -> None:
    stream = Stream.parse(written((0, 3 * MS), (MS, 2 * MS), (2 * MS, 0)))
    assert stream.delays_ms() == [1.0, 3.0]


def test_gaps_are_between_bursts_whatever_the_order_of_arrival() -> None:
    # Bursts at 10.0 … 10.2, 11.0 and 14 ms; the frames came in another order than they were sent.
    times = [10.1, 10.0, 14.0, 11.0, 10.2]
    stream = Stream(list(range(5)), [round(time * MS) for time in times])
    assert stream.gaps_ms(0.5) == pytest.approx([0.8, 3.0])


def test_a_lost_frame_is_no_arrival() -> None:
    assert Stream([0, 1, 2], [MS, 0, 3 * MS]).gaps_ms(0.5) == [2.0]


@pytest.mark.parametrize("count", [1, 2, 99, 100, 1000, 1001])
def test_a_quantile_is_the_least_value_that_so_many_do_not_exceed(count: int) -> None:
    values = sorted(random.Random(count).sample(range(10**6), count))
    for permille in (1, 500, 990, 999, 1000):
        enough = [v for v in values if 1000 * sum(x <= v for x in values) >= permille * count]
        assert quantile(values, permille / 1000) == enough[0]


def test_nothing_has_no_quantile() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        quantile([], 0.5)


def test_the_quantiles_reported() -> None:
    values = [float(n) for n in range(1, 1001)]
    assert quantiles(values) == {"p50": 500, "p99": 990, "p99.9": 999, "max": 1000}
