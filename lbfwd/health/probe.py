"""Probes over plain sockets: TCP, UDP, DNS. Each has a socket of its own, used once.

A probe raises OSError for what the kernel says, and has no timeout of its own. What it says at
once, before anything has left, is this node's own fault (NotSentError); the same errors come later,
by ICMP, too.
"""

import asyncio
import errno
import os
import secrets
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from lbfwd.health import dns_message
from lbfwd.health.outcome import PASSED, NotSentError, Outcome
from lbfwd.health.question import Dns, Question, Udp
from lbfwd.health.route import Route

DATAGRAM_BYTES = 65535
_REASONS = {errno.EINVAL: "a blackhole route", errno.EPERM: "a firewall rule"}
# Without it the kernel tells datagrams' senders of closed ports only (ip(7), ipv6(7)).
_RECVERR = {
    socket.AF_INET: (socket.IPPROTO_IP, 11),
    socket.AF_INET6: (socket.IPPROTO_IPV6, 25),
}
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # struct linger: on, 0 seconds


def stream(question: Question, route: Route) -> socket.socket:
    """Return a TCP socket that has begun to connect; ``loop.sock_connect`` awaits the rest.

    It closes with a reset: its port is free at once. Raises OSError.
    """
    with ExitStack() as undo:
        sock = undo.enter_context(route.bind(socket.SOCK_STREAM))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        with _sending(), suppress(BlockingIOError):
            sock.connect(_address(question))
        undo.pop_all()
    return sock


async def tcp(question: Question, route: Route) -> Outcome:
    """Connect."""
    with stream(question, route) as sock:
        await asyncio.get_running_loop().sock_connect(sock, _address(question))
    return PASSED


async def udp(question: Question, ask: Udp, route: Route) -> Outcome:
    """Send, and wait for the answer; where none is expected, for an ICMP error until cancelled."""
    with _datagrams(question, route, ask.payload) as sock:
        answer = await asyncio.get_running_loop().sock_recv(sock, DATAGRAM_BYTES)
    if ask.expect in answer:
        return PASSED
    return Outcome("wrong_body", f"the answer of {len(answer)} bytes does not hold expect")


async def dns(question: Question, ask: Dns, route: Route) -> Outcome:
    """Ask, and judge the answer."""
    identity = secrets.randbits(16)
    with _datagrams(question, route, dns_message.query(ask, identity)) as sock:
        answer = await asyncio.get_running_loop().sock_recv(sock, DATAGRAM_BYTES)
    return dns_message.judge(ask, identity, answer)


@contextmanager
def _datagrams(question: Question, route: Route, data: bytes) -> Iterator[socket.socket]:
    """Send from a socket that takes datagrams, and ICMP errors, from the one who is asked only."""
    with route.bind(socket.SOCK_DGRAM) as sock:
        sock.setsockopt(*_RECVERR[sock.family], 1)
        with _sending():
            sock.connect(_address(question))
            sock.send(data)
        yield sock


@contextmanager
def _sending() -> Iterator[None]:
    try:
        yield
    except BlockingIOError:
        raise
    except OSError as error:
        code = error.errno or 0
        reason = _REASONS.get(code) or os.strerror(code)
        raise NotSentError(code, f"this node could not send: {reason}") from error


def _address(question: Question) -> tuple[str, int]:
    return str(question.target), question.port
