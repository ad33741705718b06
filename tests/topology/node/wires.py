"""Sockets of this process in other namespaces, and counted traffic between them."""

import ctypes
import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from lbfwd.demo.lab import Host

T = TypeVar("T")

CLONE_NEWNET = 0x40000000
ETH_P_ALL = 3
SOL_PACKET = 263
PACKET_IGNORE_OUTGOING = 23
SO_RCVBUFFORCE = 33
RECEIVE_BYTES = 256 << 20
QUIET_S = 0.5


def inside(host: Host, make: Callable[[], T]) -> T:
    """Call ``make`` in a namespace: the sockets that it opens stay there."""

    def made() -> T:
        enter(host.netns)
        return make()

    # The namespace is the thread's: it ends with it.
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(made).result()


def enter(netns: str) -> None:
    """Have this thread in a namespace from now on."""
    fd = os.open(f"/var/run/netns/{netns}", os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(fd, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {netns}")
    finally:
        os.close(fd)


def tap(host: Host, interface: str) -> socket.socket:
    """Open a packet socket that sees what arrives at an interface (not what leaves there)."""

    def make() -> socket.socket:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BYTES)
        sock.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        sock.bind((interface, ETH_P_ALL))
        sock.settimeout(QUIET_S)
        return sock

    return inside(host, make)


def frames(sock: socket.socket, count: int | None = None) -> list[bytes]:
    """Read until ``count`` frames have come, or nothing more comes for QUIET_S."""
    got: list[bytes] = []
    while count is None or len(got) < count:
        try:
            got.append(sock.recv(65536))
        except TimeoutError:
            break
        except OSError:  # the link went down meanwhile
            continue
    return got


class Sender(threading.Thread):
    """Sends numbered copies of frames, evenly, until it is told to stop.

    The number stands in the last 8 bytes of a frame.
    """

    def __init__(self, sock: socket.socket, templates: list[bytes], rate: int = 20_000) -> None:
        super().__init__(daemon=True)
        self._sock = sock
        self._templates = templates
        self._interval_s = 1 / rate
        self._ended = threading.Event()
        self.sent = 0

    def run(self) -> None:
        due = time.monotonic()
        while not self._ended.is_set():
            template = self._templates[self.sent % len(self._templates)]
            try:
                self._sock.send(template[:-8] + struct.pack("!Q", self.sent))
            except OSError:  # the queue is full or the link is down: not sent
                continue
            self.sent += 1
            due += self._interval_s
            if (ahead := due - time.monotonic()) > 0:
                time.sleep(ahead)  # its rate

    def __enter__(self) -> "Sender":
        self.start()
        return self

    def __exit__(self, *_rest: object) -> None:
        self.stop()

    def stop(self) -> int:
        """Stop and return how many frames were sent."""
        self._ended.set()
        self.join()
        return self.sent


def number_of(frame: bytes) -> int:
    """Return the number that a Sender gave a frame."""
    return int(struct.unpack("!Q", frame[-8:])[0])
