"""What a service manager is told: ready, reloading, stopping, alive (sd_notify(3)).

Without a service manager, as on a terminal, nobody is told anything.
"""

import asyncio
import os
import socket
import time
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Protocol, Self

from lbfwd.supervisor import log
from lbfwd.supervisor.errors import describe
from lbfwd.supervisor.workers import HANG_S, SlotState

STILL_S = 4 * HANG_S
"""A running worker's heartbeat that was not seen to move for so long: whoever looks has stopped."""
STATUS_S = 10.0
AGAIN_S = 1.0
KEPT = 8
_NAMES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Pulse(Protocol):
    """A worker slot, as far as the watchdog looks at it."""

    @property
    def state(self) -> SlotState: ...  # noqa: D102

    @property
    def moved_at(self) -> float: ...  # noqa: D102


def stuck(slots: Sequence[Pulse], now: float) -> bool:
    """Whether a running worker's heartbeat stands still, and nobody has replaced the worker.

    ``now``: seconds, of the clock of ``moved_at``. Workers that start, or are given up, have none.
    """
    return any(slot.state == "running" and now - slot.moved_at > STILL_S for slot in slots)


class Notifier:
    """Speaks to the service manager, and never waits for it."""

    def __init__(self, address: str = "", watchdog_s: float = 0.0) -> None:
        """``address``: a path, or "@" and an abstract name (unix(7)); empty: nobody listens.

        ``watchdog_s``: who is not heard of for so long is ended; 0: nobody looks.
        """
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._watchdog_s = watchdog_s
        self._unsent: list[str] = []

    @classmethod
    def inherited(cls, environment: MutableMapping[str, str] = os.environ) -> Self:
        """Take what the service manager has put into the environment, out of it.

        Processes that this one starts are not to speak for it.
        """
        address, watchdog_us, pid = (environment.pop(name, "") for name in _NAMES)
        mine = watchdog_us.isdigit() and pid in ("", str(os.getpid()))
        return cls(address, int(watchdog_us) / 1e6 if mine else 0.0)

    def tell(self, *assignments: str) -> None:
        """Send assignments, such as READY=1, in one datagram.

        What the service manager has no room for is kept, and sent before the next: the last few.
        """
        self._unsent = [*self._unsent, *assignments][-KEPT:]
        if not self._address or not self._unsent:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto("\n".join(self._unsent).encode(), self._address)
        except BlockingIOError:
            return
        except OSError as error:
            log.get().warning("service_manager_not_told", reason=describe(error))
        self._unsent.clear()

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """Tell that what is done within is a reload, and that it is over, however it ends."""
        # Type=notify-reload compares the time with that of its SIGHUP (systemd.service(5)).
        self.tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            yield
        finally:
            self.tell("READY=1")

    def feed_watchdog(self) -> None:
        """Tell that this process is alive, where somebody wants to know."""
        if self._watchdog_s:
            self.tell("WATCHDOG=1")

    def stopping(self) -> None:
        """Tell that the end has begun."""
        self.tell("STOPPING=1", "STATUS=stopping")

    async def run(self, status: Callable[[], str], alive: Callable[[], bool]) -> None:
        """Tell the status as it changes and, while ``alive``, feed the watchdog; for ever.

        The watchdog is fed twice in its time, and at once when it is alive again.
        """
        if not self._address:
            return
        told, period_s = "", self._watchdog_s / 2 or STATUS_S
        while True:
            text, lives = status(), alive()
            self.tell(*([f"STATUS={text}"] if text != told else []))
            if lives:
                self.feed_watchdog()
            told = text
            await asyncio.sleep(period_s if lives else min(period_s, AGAIN_S))
