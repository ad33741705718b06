"""A worker that forwards nothing and does as its environment says; writes down its orders.

FAKE_WORKER: ``obey``, ``refuse OP``, ``exit OP``, ``mute OP``. FAKE_LOG: a file.
"""

import json
import os
import signal
import socket
from pathlib import Path

from lbfwd import channel


def main(orders: socket.socket) -> None:
    manner, _, bad_op = os.environ["FAKE_WORKER"].partition(" ")
    log = Path(os.environ["FAKE_LOG"])
    while True:
        order, fds = channel.receive(orders)
        blocked = sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        entry = order | {"fds": len(fds), "pid": os.getpid(), "blocked": blocked}
        with log.open("a") as file:
            file.write(json.dumps(entry) + "\n")
        for fd in fds:
            os.close(fd)
        if order["op"] == bad_op and manner == "exit":
            os._exit(3)
        if order["op"] == bad_op and manner == "mute":
            continue
        if order["op"] == bad_op and manner == "refuse":
            channel.send(orders, {"op": order["op"], "error": "no room"})
            continue
        channel.send(orders, {"op": order["op"], "ok": True})
