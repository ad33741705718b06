"""What the supervisor and a worker say to each other: JSON messages with descriptors.

One SOCK_SEQPACKET pair a worker. The supervisor asks, the worker answers each request once:
``{"op": …, "ok": true}`` or ``{"op": …, "error": "…"}``. Requests (descriptors in brackets):

=========  ============================  =====================================
op         keys                          descriptors
=========  ============================  =====================================
hello                                    (the process is there; it changes nothing)
start      slot, cpu, busy_poll_us       [control, arena, counters, flows]
add_rx     index, geometry               [ring socket]
remove_rx  index
add_tx     index, geometry               [ring socket]
remove_tx  index
go                                       (recover, drop capabilities, forward)
=========  ============================  =====================================
"""

import json
import socket
from collections.abc import Sequence
from typing import Any

MAX_MESSAGE = 65536
MAX_DESCRIPTORS = 8

Message = dict[str, Any]


def send(sock: socket.socket, message: Message, fds: Sequence[int] = ()) -> None:
    """Send one message. Raises OSError when the other side is gone."""
    socket.send_fds(sock, [json.dumps(message).encode()], list(fds))


def receive(sock: socket.socket) -> tuple[Message, list[int]]:
    """Receive one message and its descriptors, which the caller owns.

    Raises EOFError when the other side is gone.
    """
    data, fds, _flags, _address = socket.recv_fds(sock, MAX_MESSAGE, MAX_DESCRIPTORS)
    if not data:
        raise EOFError("the other side of the channel is gone")
    message: Message = json.loads(data)
    return message, fds
