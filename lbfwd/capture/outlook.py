"""What becomes of a received packet, by the node's own tables and the packet path itself (explain).

It is told when the packet is read here, a moment after the worker had it.
"""

import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lbfwd.capture.packet import ETHERNET_BYTES, destination, ip_packet
from lbfwd.capture.selection import CaptureError
from lbfwd.config import IPAddress
from lbfwd.encap import checksum
from lbfwd.explain import explain
from lbfwd.tables import FILES

_SLOT = 0  # any worker finds a flow in the others' tables, too
_IPV6_BYTES = 40


@dataclass(frozen=True)
class Outlook:
    """Which backend gets the packet (None: nobody), and why nobody does ("none": one does)."""

    backend: IPAddress | None
    reason: str


@contextmanager
def foreseeing(directory: Path, rings: Collection[int]) -> Iterator[Callable[[bytes], Outlook]]:
    """Look at the shared files of the node that runs; gives what tells a frame's outlook.

    ``rings``: indexes of the TX rings that are open. Both raise CaptureError.
    """
    with ExitStack() as stack:
        files = [_open(stack, directory / name) for name in FILES]
        yield partial(_outlook, files, rings)


def _open(stack: ExitStack, path: Path) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise CaptureError(f"{path}: {error.strerror}") from error
    stack.callback(os.close, fd)
    return fd


def _outlook(files: Sequence[int], rings: Collection[int], frame: bytes) -> Outlook:
    now_ms = time.monotonic_ns() // 1_000_000
    try:
        told = explain(files, _SLOT, rings, frame, now_ms)
    except OSError as error:
        raise CaptureError(f"tables of the node: {error}") from error
    if told.reason != "none" or not told.sent:
        return Outlook(None, told.reason)
    return Outlook(destination(ip_packet(told.sent[0][1])), told.reason)


def shortened(frame: bytes) -> bytes:
    """Return a frame whose IP header says that it ends where it is cut.

    For what was cut by the capture, and for super-frames, which the path segments.
    """
    packet = bytearray(ip_packet(frame))
    start = len(frame) - len(packet)
    version = packet[0] >> 4 if packet else 0
    if start < ETHERNET_BYTES:
        return frame
    if version == 4 and len(packet) >= 20:
        header = (packet[0] & 0x0F) * 4
        packet[2:4] = len(packet).to_bytes(2, "big")
        packet[10:12] = bytes(2)
        packet[10:12] = checksum(bytes(packet[:header])).to_bytes(2, "big")
    elif version == 6 and len(packet) >= _IPV6_BYTES:
        packet[4:6] = (len(packet) - _IPV6_BYTES).to_bytes(2, "big")
    return frame[:start] + bytes(packet)
