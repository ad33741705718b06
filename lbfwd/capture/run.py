"""The loop: read what has come, write it in the order of its time, end in good order.

``rate`` bounds what is read a second; what is more waits in the sockets' buffers and, when they are
full, costs the kernel no more than the filter. So forwarding is never waited for, nor slowed down
by a reader that is slow.
"""

import math
import os
import platform
import select
import signal
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from lbfwd import __version__
from lbfwd.capture import pcapng
from lbfwd.capture.tap import Frame, Tap
from lbfwd.config.machine import usable_cpus

_TURN_MS = 50
SLICE_S = 0.05  # so finely is the rate divided
_NICENESS = 10

Comment = Callable[[Frame], str | None]


@dataclass(frozen=True)
class Limits:
    """When to end, and what is kept. 0: no limit, but for ``rate``: packets a second."""

    count: int = 0
    seconds: float = 0.0
    rate: int = 10_000
    snaplen: int = 1 << 18


@dataclass
class Tally:
    """What was written."""

    before: int = 0
    after: int = 0
    ended: str = ""

    @property
    def written(self) -> int:
        """Packets in the file."""
        return self.before + self.after


class Budget:
    """So many packets a second may be read: a token bucket of a slice of a second."""

    def __init__(self, rate: int) -> None:
        """Begin with a slice."""
        self._rate = rate
        self._most = max(1.0, rate * SLICE_S)
        self._tokens = self._most
        self._since = time.monotonic()

    def take(self) -> bool:
        """Take one packet's worth; False when there is none now."""
        now = time.monotonic()
        self._tokens = min(self._most, self._tokens + (now - self._since) * self._rate)
        self._since = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def give_back(self) -> None:
        """Return what was taken for a packet that was not there."""
        self._tokens += 1


class _Stop:
    """SIGINT and SIGTERM end a capture in good order; a second one ends it at once."""

    def __init__(self) -> None:
        self.requested = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, self._note) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


class Capture:
    """One capture, into one file."""

    def __init__(
        self, follow: Callable[[], Sequence[Tap]], comment: Comment, limits: Limits, out: int
    ) -> None:
        """``follow`` returns taps that were opened since it was called last.

        ``out``: the descriptor to write to.
        """
        self._follow = follow
        self._taps: list[Tap] = []
        self._turns: deque[Tap] = deque()  # the next one first
        self._comment = comment
        self._limits = limits
        self._out = out
        self._budget = Budget(limits.rate)
        self._held: list[Frame] = []
        self._stop = _Stop()
        self._poller = select.poll()
        self._poller.register(out, 0)  # its end shows, if it is a pipe
        self.tally = Tally()

    def run(self, about: str, started: Callable[[], None]) -> Tally:
        """Write until a limit, a signal, or until nobody reads any more.

        ``about`` describes the capture in the file; ``started`` is called when it has begun. Raises
        CaptureError, and the OSError of a file that cannot be written.
        """
        with self._stop.listening():
            try:
                _write(self._out, self._header(about))
                self._take_up(self._follow())
                started()
                self._loop()
                _write(self._out, self._trailer())
            except BrokenPipeError:
                self.tally.ended = "nobody reads it any more"
                self._count()
        return self.tally

    def _loop(self) -> None:
        end = time.monotonic() + (self._limits.seconds or math.inf)
        while not self._stop.requested and time.monotonic() < end and not self._full():
            left_ms = (end - time.monotonic()) * 1000
            for descriptor, _events in self._poller.poll(min(_TURN_MS, max(0.0, left_ms))):
                if descriptor == self._out:
                    raise BrokenPipeError
            self._turn()
        self._turn()
        self._write_due(math.inf)

    def _turn(self) -> None:
        self._take_up(self._follow())
        # A packet that came before this moment is read now, whichever interface it came by.
        moment_ns = time.time_ns()
        exhausted = self._read()
        self._write_due(moment_ns)
        if exhausted:
            time.sleep(SLICE_S)

    def _read(self) -> bool:
        """Read what there is, from the interfaces in turn. Returns whether the rate is used up."""
        quiet = 0
        while quiet < len(self._turns):
            if not self._budget.take():
                return True
            frame = self._turns[0].read()
            if frame is None:
                self._budget.give_back()
                quiet += self._is_quiet()
            else:
                self._turns.rotate(-1)
                self._held.append(frame)
                quiet = 0
        return False

    def _is_quiet(self) -> bool:
        """Pass on to the next tap; one that is retired, and empty now, is not asked again."""
        tap = self._turns[0]
        if not tap.retired:
            self._turns.rotate(-1)
            return True
        self._poller.unregister(tap)
        self._turns.popleft()
        tap.close()
        return False

    def _take_up(self, taps: Sequence[Tap]) -> None:
        """Read these, too; their descriptions go before their packets."""
        for tap in taps:
            self._poller.register(tap, select.POLLIN)
            self._taps.append(tap)
            self._turns.append(tap)
        _write(
            self._out,
            b"".join(pcapng.interface(tap.name, self._limits.snaplen) for tap in taps),
        )

    def _write_due(self, until_ns: float) -> None:
        """Write what was captured up to a moment, in order."""
        due = sorted((f for f in self._held if f.time_ns <= until_ns), key=_time)
        self._held = [frame for frame in self._held if frame.time_ns > until_ns]
        _write(self._out, b"".join(block for frame in due if (block := self._block(frame))))

    def _block(self, frame: Frame) -> bytes:
        if self._full() or (comment := self._comment(frame)) is None:
            return b""
        if frame.sent:
            self.tally.after += 1
        else:
            self.tally.before += 1
        kept = frame.data[: self._limits.snaplen]
        return pcapng.packet(
            pcapng.Packet(frame.interface, frame.time_ns, frame.length, kept, frame.flags, comment)
        )

    def _full(self) -> bool:
        return 0 < self._limits.count <= self.tally.written

    @staticmethod
    def _header(about: str) -> bytes:
        system = f"{platform.system()} {platform.release()}"
        return pcapng.section(f"lbfwd {__version__}", system, about)

    def _count(self) -> None:
        for tap in self._taps:
            tap.count()

    def _trailer(self) -> bytes:
        self._count()
        now_ns = time.time_ns()
        return b"".join(
            pcapng.statistics(tap.number, now_ns, tap.received, tap.dropped) for tap in self._taps
        )


def step_back() -> None:
    """Run behind everybody else."""
    os.nice(_NICENESS)


def keep_off(workers: Collection[int]) -> None:
    """Leave the workers' cores to them, where there are others."""
    if others := usable_cpus() - set(workers):
        os.sched_setaffinity(0, others)


def _time(frame: Frame) -> int:
    return frame.time_ns


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
