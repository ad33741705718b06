"""What pktgen's files say. Pure; formats: net/core/pktgen.c, functions ending in ``_show``."""

import re
from dataclasses import dataclass

MICROSECOND = 1e-6


@dataclass(frozen=True)
class Thread:
    """The devices of a thread."""

    running: tuple[str, ...]
    stopped: tuple[str, ...]

    @property
    def devices(self) -> tuple[str, ...]:
        """All of them."""
        return self.running + self.stopped


@dataclass(frozen=True)
class Sent:
    """What a device has sent. Times in seconds of the kernel's monotonic clock.

    ``errors``: packets that the driver or its queue refused; to find the queue full is no error.
    ``idle_s``: time spent waiting for the next packet's turn.
    """

    packets: int
    errors: int
    started_s: float
    stopped_s: float
    idle_s: float

    @property
    def elapsed_s(self) -> float:
        """Seconds from the first packet to the last."""
        return self.stopped_s - self.started_s


def thread(text: str) -> Thread:
    """Read ``kpktgend_N``. Raises ValueError."""
    found = re.search(r"^Running:(.*)\nStopped:(.*)$", text, re.M)
    if not found:
        raise ValueError(f"not a thread of pktgen: {text!r}")
    return Thread(tuple(found[1].split()), tuple(found[2].split()))


def result(text: str) -> str:
    """Return the result of the last command or run, without ``Result:``, on one line.

    It is the last thing in a file. Raises ValueError where there is none.
    """
    _, mark, found = text.rpartition("\nResult: ")
    if not mark:
        raise ValueError(f"no result in {text!r}")
    return " ".join(found.split())


def ended(text: str) -> bool:
    """Return whether a device that was started has stopped, well or badly. Raises ValueError."""
    outcome = result(text)
    return _is_of_a_run(outcome) or not outcome.startswith(("OK: ", "Starting"))


def sent(text: str) -> Sent:
    """Read the counters of a device that has stopped. Raises ValueError, also if it went wrong."""
    outcome = result(text)
    if not _is_of_a_run(outcome):
        raise ValueError(outcome)
    counted = re.search(r"pkts-sofar: (\d+)\s+errors: (\d+)", text)
    times = re.search(r"started: (\d+)us\s+stopped: (\d+)us\s+idle: (\d+)us", text)
    if not counted or not times:
        raise ValueError(f"no counters in {text!r}")
    started, stopped, idle = (int(us) * MICROSECOND for us in times.groups())
    return Sent(int(counted[1]), int(counted[2]), started, stopped, idle)


def _is_of_a_run(outcome: str) -> bool:
    return re.match(r"OK: \d+\(", outcome) is not None


def expected(command: str) -> str:
    """Return how the result begins when pktgen has understood all of a command.

    A value that it cut or limited is echoed as another. One that it overlooked is not echoed: an
    older result stands there (Linux 6.1 accepts ``rate 0`` and leaves the result as it was).
    """
    name, value = command.split()
    if name == "flag":
        return "OK: flags="
    return f"OK: dstmac {value}" if name == "dst_mac" else f"OK: {name}={value}"
