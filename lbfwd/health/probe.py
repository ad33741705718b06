"""Probes over plain sockets: TCP, UDP, DNS. Each has a socket of its own, used once.

A probe raises OSError for what the kernel says, and has no timeout of its own.
"""

import asyncio
import secrets
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from lbfwd.health import dns_message
from lbfwd.health.outcome import PASSED, Outcome
from lbfwd.health.question import Dns, Question, Udp
from lbfwd.health.route import Route

DATAGRAM_BYTES = 65535
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # struct linger: on, 0 seconds


def stream(route: Route) -> socket.socket:
    """Return a TCP socket that closes with a reset: its port is free at once. Raises OSError."""
    sock = route.bind(socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    return sock


async def tcp(question: Question, route: Route) -> Outcome:
    """Connect."""
    with stream(route) as sock:
        await asyncio.get_running_loop().sock_connect(sock, _address(question))
    return PASSED


async def udp(question: Question, ask: Udp, route: Route) -> Outcome:
    """Send, and wait for the answer; where none is expected, for an ICMP error until cancelled."""
    with _datagrams(question, route) as sock:
        sock.send(ask.payload)
        answer = await asyncio.get_running_loop().sock_recv(sock, DATAGRAM_BYTES)
    if ask.expect in answer:
        return PASSED
    return Outcome("wrong_body", f"the answer of {len(answer)} bytes does not hold expect")


async def dns(question: Question, ask: Dns, route: Route) -> Outcome:
    """Ask, and judge the answer."""
    identity = secrets.randbits(16)
    with _datagrams(question, route) as sock:
        sock.send(dns_message.query(ask, identity))
        answer = await asyncio.get_running_loop().sock_recv(sock, DATAGRAM_BYTES)
    return dns_message.judge(ask, identity, answer)


@contextmanager
def _datagrams(question: Question, route: Route) -> Iterator[socket.socket]:
    """Open a socket that takes datagrams, and ICMP errors, from the one who is asked only."""
    with route.bind(socket.SOCK_DGRAM) as sock:
        sock.connect(_address(question))
        yield sock


def _address(question: Question) -> tuple[str, int]:
    return str(question.target), question.port
