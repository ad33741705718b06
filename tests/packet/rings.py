"""Rings written by hand into memory files: the test is the kernel.

Layouts: linux/if_packet.h and Documentation/networking/packet_mmap.rst.
"""

import itertools
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from lbfwd import ring
from tests.packet.bench import Bench, Outcome

TP_STATUS_KERNEL, TP_STATUS_USER, TP_STATUS_VLAN_VALID = 0, 1, 1 << 4
PACKET_HOST, PACKET_BROADCAST, PACKET_OTHERHOST = 0, 1, 3
TAGGED = TP_STATUS_USER | TP_STATUS_VLAN_VALID
V2_HEADER, V3_HEADER = 32, 48
MAC_OFFSET = 96  # of the frame in its slot; the offload header stands before it
V2 = ring.Geometry(2, 16384, 1, 2048)
V3 = ring.Geometry(3, 16384, 4, 2048, 1)


@dataclass(frozen=True)
class Received:
    data: bytes
    status: int = TP_STATUS_USER
    packet_type: int = PACKET_HOST
    missing: int = 0  # bytes of the frame that the ring does not hold
    tci: int = 0  # VLAN tag that was moved out of the frame

    def _address(self) -> bytes:
        return struct.pack("<HHiHBB8s", 17, 0, 1, 1, self.packet_type, 6, bytes(8))

    def _slot(self, header: bytes, header_bytes: int) -> bytes:
        head = header.ljust(header_bytes, b"\0") + self._address()
        return head.ljust(MAC_OFFSET, b"\0") + self.data

    def v2(self) -> bytes:
        wire = len(self.data) + self.missing
        header = struct.pack(
            "<IIIHHIIH",
            self.status,
            wire,
            len(self.data),
            MAC_OFFSET,
            MAC_OFFSET + 14,
            0,
            0,
            self.tci,
        )
        return self._slot(header, V2_HEADER)

    def v3(self, next_offset: int) -> bytes:
        wire = len(self.data) + self.missing
        lengths = struct.pack("<IIIIII", next_offset, 0, 0, len(self.data), wire, self.status)
        header = lengths + struct.pack("<HHII", MAC_OFFSET, MAC_OFFSET + 14, 0, self.tci)
        return self._slot(header, V3_HEADER)


class MemoryRing:
    """A ring that a worker may map, in a file of the right size."""

    def __init__(self, geometry: ring.Geometry) -> None:
        self.geometry = geometry
        self.fd = os.memfd_create("lbfwd-test-ring")
        os.ftruncate(self.fd, geometry.block_bytes * geometry.blocks)

    def put_v2(self, first: int, packets: Sequence[Received]) -> None:
        for number, packet in enumerate(packets):
            os.pwrite(self.fd, packet.v2(), (first + number) * self.geometry.frame_bytes)

    def put_block(self, block: int, sequence: int, packets: Sequence[Received]) -> None:
        first, data = 48, b""
        for number, packet in enumerate(packets):
            size = -(-len(packet.v3(0)) // 16) * 16
            last = number == len(packets) - 1
            data += packet.v3(0 if last else size).ljust(size, b"\0")
        header = struct.pack(
            "<IIIIIIQ", 1, 0, TP_STATUS_USER, len(packets), first, first + len(data), sequence
        )
        at = block * self.geometry.block_bytes
        os.pwrite(self.fd, header.ljust(first, b"\0") + data, at)

    def status_v2(self, slot: int) -> int:
        data = os.pread(self.fd, 4, slot * self.geometry.frame_bytes)
        return int.from_bytes(data, "little")

    def status_block(self, block: int) -> int:
        return int.from_bytes(os.pread(self.fd, 4, block * self.geometry.block_bytes + 8), "little")


def take(node: Bench, memory: MemoryRing) -> None:
    """A worker takes the ring, forwards what waits in it, and gives it back."""
    node.worker.add_rx(0, memory.fd, memory.geometry)
    node.worker.remove_rx(0)


def drain(node: Bench, memory: MemoryRing) -> Outcome:
    """What became of the frames of a ring; TX rings are in memory."""
    before, seen = node.tables.totals(), node.tables.slot(0).seen
    take(node, memory)
    return node.outcome(before, seen)


_sequence = itertools.count(1)


@contextmanager
def block_of(frames: Sequence[bytes]) -> Iterator[MemoryRing]:
    """One V3 block of these frames: one burst, or several when there are more than that."""
    memory = MemoryRing(ring.Geometry(3, 1 << 20, 1, 2048, 1))
    memory.put_block(0, next(_sequence), [Received(data) for data in frames])
    try:
        yield memory
    finally:
        os.close(memory.fd)


def forward_block(node: Bench, frames: Sequence[bytes]) -> Outcome:
    """What became of the frames of one block."""
    with block_of(frames) as memory:
        return drain(node, memory)
