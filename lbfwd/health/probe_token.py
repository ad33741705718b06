"""The probe of a backend that registered itself: a random token, there and back.

An echo request to a VIP goes through the tunnel to this one backend, in GRE to its address. Its
payload is a token of 128 random bits, new each time. A reply that brings it back was made from
what that backend unwrapped: nobody else was sent the token. The backend's kernel answers, with the
VIP as the source, straight to this node: so it has the VIP, and a way back.
"""

import asyncio
import secrets
import socket

from lbfwd.health import echo
from lbfwd.health.outcome import PASSED, Outcome
from lbfwd.health.question import Question
from lbfwd.health.route import NamedRoute

TOKEN_BYTES = 16
RECEIVE_BYTES = 65536


async def ask(question: Question, route: NamedRoute) -> Outcome:
    """Send a token and wait until it comes back. Raises OSError."""
    token, version = secrets.token_bytes(TOKEN_BYTES), question.target.version
    loop = asyncio.get_running_loop()
    sock, name = route.bind_named(socket.SOCK_RAW)
    with sock:
        sock.connect((str(question.target), 0))  # hears of nobody else
        sock.send(echo.message(version, name, 0, token))
        while not echo.brings(version, await loop.sock_recv(sock, RECEIVE_BYTES), name, 0, token):
            pass  # the socket hears of no other name, but perhaps of an earlier probe's
    return PASSED
