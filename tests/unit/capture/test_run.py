"""The loop with taps that are pipes."""

import os
import time
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

import pytest
from scapy.utils import RawPcapNgReader

from lbfwd.capture import pcapng
from lbfwd.capture.run import SLICE_S, Budget, Capture, Limits
from lbfwd.capture.tap import Frame

PAST = 1_700_000_000 * 10**9
READY_S = 10


class Pipe:
    """A tap that holds frames; its descriptor is readable from the start."""

    def __init__(self, number: int, frames: list[Frame]) -> None:
        self.number, self.name = number, f"eth{number}"
        self.received = self.dropped = 0
        self.retired = False
        self.closed = False
        self.left = list(frames)
        self._fds = os.pipe()
        os.write(self._fds[1], b"x")

    def fileno(self) -> int:
        return self._fds[0]

    def read(self) -> Frame | None:
        return self.left.pop(0) if self.left else None

    def count(self) -> None:
        self.received += 5

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            for fd in self._fds:
                os.close(fd)


def once(taps: Sequence[Pipe]) -> Callable[[], Sequence[Pipe]]:
    """What follows a node that does not change: all taps at first, then no more."""
    coming = [list(taps)]
    return lambda: coming.pop() if coming else ()


def frame(interface: int, moment: int, sent: bool = False) -> Frame:
    flags = pcapng.OUTBOUND if sent else pcapng.INBOUND
    data = moment.to_bytes(8, "big") * 8
    return Frame(interface, PAST + moment, len(data), data, flags, unfinished=False)


@pytest.fixture
def run(tmp_path: Path):  # type: ignore[no-untyped-def]
    opened: list[Pipe] = []

    def run(frames: list[list[Frame]], limits: Limits, comment=lambda _frame: "c"):  # type: ignore[no-untyped-def]
        taps = [Pipe(number, some) for number, some in enumerate(frames)]
        opened.extend(taps)
        with (tmp_path / "out").open("wb") as out:
            capture = Capture(once(taps), comment, limits, out.fileno())  # type: ignore[arg-type]
            tally = capture.run("test", lambda: None)
        return tally, list(RawPcapNgReader(BytesIO((tmp_path / "out").read_bytes())))

    yield run
    for tap in opened:
        tap.close()


def moments(found: list[tuple[bytes, object]]) -> list[int]:
    return [int.from_bytes(data[:8], "big") for data, _ in found]


def test_packets_of_all_interfaces_in_the_order_of_time(run) -> None:  # type: ignore[no-untyped-def]
    frames = [[frame(0, n) for n in (1, 4, 5)], [frame(1, n, sent=True) for n in (2, 3, 6, 7)]]
    tally, found = run(frames, Limits(count=7))
    assert moments(found) == [1, 2, 3, 4, 5, 6, 7]
    assert (tally.before, tally.after) == (3, 4)


def test_the_count_is_kept_exactly(run) -> None:  # type: ignore[no-untyped-def]
    tally, found = run([[frame(0, n) for n in range(100)]], Limits(count=10))
    assert (tally.written, len(found)) == (10, 10)


def test_what_is_not_wanted_does_not_count(run) -> None:  # type: ignore[no-untyped-def]
    odd = lambda f: "odd" if f.time_ns % 2 else None  # noqa: E731
    _tally, found = run([[frame(0, n) for n in range(100)]], Limits(count=3), odd)
    assert moments(found) == [1, 3, 5]


def test_packets_are_cut(run) -> None:  # type: ignore[no-untyped-def]
    _tally, ((data, metadata),) = run([[frame(0, 1)]], Limits(count=1, snaplen=10))
    assert (len(data), metadata.wirelen) == (10, 64)


def test_time_ends_it(run) -> None:  # type: ignore[no-untyped-def]
    began = time.monotonic()
    tally, _found = run([[]], Limits(seconds=0.2))
    assert 0.2 <= time.monotonic() - began < READY_S
    assert tally.written == 0


def test_a_reader_that_goes_ends_it() -> None:
    tap = Pipe(0, [])
    reader, writer = os.pipe()
    capture = Capture(once([tap]), lambda _frame: "c", Limits(), writer)  # type: ignore[arg-type]
    tally = capture.run("test", lambda: os.close(reader))
    assert tally.ended == "nobody reads it any more"
    assert tap.received == 5, "what the kernel has counted is told all the same"
    os.close(writer)
    tap.close()


def test_taps_come_and_go_in_mid_stream(tmp_path: Path) -> None:
    first, second = Pipe(0, [frame(0, 1), frame(0, 2)]), Pipe(1, [frame(1, 3, sent=True)])
    turns = iter([[first], (), [second]])

    def follow() -> Sequence[Pipe]:
        coming = next(turns, ())
        first.retired |= second in coming
        return coming

    with (tmp_path / "out").open("wb") as out:
        capture = Capture(follow, lambda _frame: "c", Limits(count=3), out.fileno())  # type: ignore[arg-type]
        capture.run("test", lambda: None)
    assert moments(list(RawPcapNgReader(BytesIO((tmp_path / "out").read_bytes())))) == [1, 2, 3]
    assert (first.left, first.closed, second.closed) == ([], True, False)
    second.close()


@pytest.mark.parametrize("quiet", [[0], [1], [0, 1, 3]])
def test_a_low_rate_is_not_used_up_by_interfaces_without_packets(run, quiet: list[int]) -> None:  # type: ignore[no-untyped-def]
    frames = [[] if n in quiet else [frame(n, 10 * n + m) for m in range(2)] for n in range(4)]
    wanted = sum(map(len, frames))
    tally, _found = run(frames, Limits(count=wanted, seconds=READY_S, rate=20))
    assert tally.written == wanted


def test_a_low_rate_is_shared_by_the_interfaces(run) -> None:  # type: ignore[no-untyped-def]
    frames = [[frame(n, 100 * n + m) for m in range(50)] for n in range(2)]
    tally, found = run(frames, Limits(count=6, seconds=READY_S, rate=20))
    assert tally.written == 6
    assert sum(moment >= 100 for moment in moments(found)) == 3


def test_the_rate_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    budget = Budget(1000)
    taken = sum(budget.take() for _ in range(1000))
    assert taken == 1000 * SLICE_S
    for _ in range(200):  # 2 s, in steps
        now[0] += 0.01
        taken += sum(budget.take() for _ in range(1000))
    assert taken == pytest.approx(1000 * (2 + SLICE_S), abs=2)
    now[0] += 60  # what was not used does not add up
    assert sum(budget.take() for _ in range(10_000)) == 1000 * SLICE_S
