"""Netlink events as a doorbell: something changed, look again.

Events are not read for what they say: they may be lost (ENOBUFS, which rings as well), so whoever
is called looks at the whole state. Groups: include/uapi/linux/rtnetlink.h, nfnetlink.h.
"""

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Literal

Kind = Literal["route", "nftables"]

# LINK 1, NEIGH 3, IPV4_IFADDR 5, IPV4_ROUTE 7, IPV4_RULE 8, IPV6_IFADDR 9, IPV6_ROUTE 11,
# IPV6_RULE 19, NEXTHOP 32
_ROUTE_GROUPS = (1, 3, 5, 7, 8, 9, 11, 19, 32)
_NFTABLES_GROUPS = (7,)  # NFNLGRP_NFTABLES
_NETLINK_NETFILTER = 12

_QUIET_S = 0.010  # after the last event
_LATEST_S = 0.100  # after the first event, however many follow
_AT_A_TIME = 1024  # events: a stream of them must not hold up the loop
_TRUNCATED = 1  # bytes read of a datagram: the kernel drops the rest


class Doorbell:
    """Listens from construction until ``close``; belongs to the event loop's thread."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, callback: Callable[[frozenset[Kind]], None]
    ) -> None:
        """Call back with what rang, 10 ms after the last event, 100 ms after the first at most.

        Raises PermissionError without CAP_NET_ADMIN, OSError where the kernel lacks nftables.
        """
        self._loop = loop
        self._callback = callback
        self._rang: set[Kind] = set()
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._sockets: list[socket.socket] = []
        try:
            self._listen("route", socket.NETLINK_ROUTE, _ROUTE_GROUPS)
            self._listen("nftables", _NETLINK_NETFILTER, _NFTABLES_GROUPS)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Stop listening; a call that is due is not made."""
        for sock in self._sockets:
            self._loop.remove_reader(sock.fileno())
            sock.close()
        self._sockets.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _listen(self, kind: Kind, protocol: int, groups: tuple[int, ...]) -> None:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
        self._sockets.append(sock)
        try:
            sock.bind((0, sum(1 << (group - 1) for group in groups)))
        except PermissionError as error:
            raise PermissionError(
                errno.EPERM, f"listening to {kind} events needs CAP_NET_ADMIN"
            ) from error
        self._loop.add_reader(sock.fileno(), self._readable, kind, sock)

    def _readable(self, kind: Kind, sock: socket.socket) -> None:
        for _ in range(_AT_A_TIME):
            if not _take_one(sock):
                break
        self._rang.add(kind)
        now = self._loop.time()
        if self._timer is None:
            self._deadline = now + _LATEST_S
        else:
            self._timer.cancel()
        self._timer = self._loop.call_at(min(now + _QUIET_S, self._deadline), self._ring)

    def _ring(self) -> None:
        self._timer = None
        rang = frozenset(self._rang)
        self._rang.clear()
        self._callback(rang)


def _take_one(sock: socket.socket) -> bool:
    """Take one event from the queue; False where none is left."""
    try:
        sock.recv(_TRUNCATED)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno != errno.ENOBUFS:  # events were lost: that is an event
            raise
    return True
