"""What wakes a running backend: signals to stop, and netlink events that something changed."""

import selectors
import signal
import socket
from contextlib import ExitStack, suppress
from types import FrameType
from typing import Self

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
SOL_NETLINK = 270
NETLINK_ADD_MEMBERSHIP = 1
NETLINK_NETFILTER = 12
# <linux/rtnetlink.h>: links, IPv4 addresses, routes and rules, the same of IPv6, next-hop objects.
ROUTE_GROUPS = (1, 5, 7, 8, 9, 11, 19, 32)
NFTABLES_GROUPS = (7,)  # NFNLGRP_NFTABLES
READ_BYTES = 65536


class Watch:
    """Waits for signals and events. A context manager: it puts the signals' handlers back.

    From its start to its end a signal only makes ``wait`` return, so no change is cut short.
    """

    def __init__(self) -> None:
        """Catch nothing yet."""
        self._undo = ExitStack()
        self._selector = selectors.DefaultSelector()
        self._doorbells: list[socket.socket] = []

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            stop, self._ring = (undo.enter_context(end) for end in socket.socketpair())
            self._ring.setblocking(False)
            self._doorbells = [
                undo.enter_context(_netlink(socket.NETLINK_ROUTE, ROUTE_GROUPS)),
                undo.enter_context(_netlink(NETLINK_NETFILTER, NFTABLES_GROUPS)),
            ]
            undo.enter_context(self._selector)
            for end in (stop, *self._doorbells):
                self._selector.register(end, selectors.EVENT_READ)
            self._stop = stop
            self._catch_signals(undo)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_error: object) -> None:
        self._undo.close()

    def stop(self) -> None:
        """Make every ``wait`` from now on return at once; any thread may call it."""
        with suppress(BlockingIOError):  # full: it is readable already
            self._ring.send(b"\0")

    def wait(self, timeout_s: float | None) -> bool:
        """Wait for an event, a signal or the time-out. Returns False when it is time to stop."""
        ready = {key.fileobj for key, _events in self._selector.select(timeout_s)}
        return self._stop not in ready

    def settle(self, quiet_s: float) -> bool:
        """Let a storm of events pass, and forget them. Returns True if there were any.

        Events come in bursts; the answer to all of them is the same look at the whole state.
        """
        if not any(_drain(bell) for bell in self._doorbells):
            return False
        with selectors.DefaultSelector() as selector:
            selector.register(self._stop, selectors.EVENT_READ)
            selector.select(quiet_s)
        for bell in self._doorbells:
            _drain(bell)
        return True

    def _catch_signals(self, undo: ExitStack) -> None:
        """Let signals write to a descriptor, whichever thread the kernel gives them to."""
        before = signal.set_wakeup_fd(self._ring.fileno(), warn_on_full_buffer=False)
        undo.callback(signal.set_wakeup_fd, before)
        for number in STOP_SIGNALS:
            undo.callback(signal.signal, number, signal.signal(number, _note))


def _note(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: the wake-up descriptor tells."""


def _netlink(protocol: int, groups: tuple[int, ...]) -> socket.socket:
    bell = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
    bell.setblocking(False)
    bell.bind((0, 0))
    for group in groups:
        bell.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
    return bell


def _drain(bell: socket.socket) -> bool:
    """Read what is there; it matters only that something was. An overflow is an event, too."""
    rang = False
    while True:
        try:
            bell.recv(READ_BYTES)
        except BlockingIOError:
            return rang
        except OSError:  # ENOBUFS: events were lost
            pass
        rang = True
