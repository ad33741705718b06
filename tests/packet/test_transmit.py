"""The sending half without a kernel: a packet counts as forwarded when its frame has been taken.

The test is the kernel (Documentation/networking/packet_mmap.rst): it takes frames out of the ring,
in their order, as far as it likes. The descriptor is no socket's, so every ``send`` fails.
"""

import os
import random
from collections import Counter, deque
from collections.abc import Iterator

import pytest

from lbfwd import ring
from tests.packet import bench
from tests.packet.bench import Bench, BenchMaker
from tests.packet.rings import MemoryRing, block_of, take
from tests.packet.streams import Flow, flows
from tests.packet.test_flows import chosen, members, state

TP_STATUS_AVAILABLE, TP_STATUS_SEND_REQUEST = 0, 1
LENGTH_AT, STATUS_AT, FRAME_AT = 16, 20, 58  # in a slot: struct tpacket3_hdr, virtio_net_hdr
SLOTS = 8
PATIENCE = 8  # sends that end at one head until it is given up


class Kernel:
    """A node whose TX ring is a file, and whoever takes frames out of that."""

    def __init__(self, node: Bench) -> None:
        self.node = node
        self.memory = MemoryRing(ring.tx_geometry(SLOTS, bench.MTU))
        self.head = 0
        node.worker.remove_tx(0)
        node.worker.add_tx(0, self.memory.fd, self.memory.geometry)
        self._begin = node.tables.totals()
        self._wake, self._waker = os.pipe()
        os.write(self._waker, b"x")

    def close(self) -> None:
        for fd in (self.memory.fd, self._wake, self._waker):
            os.close(fd)

    def _at(self, slot: int) -> int:
        return slot % SLOTS * self.memory.geometry.frame_bytes

    def _number(self, slot: int, at: int) -> int:
        return int.from_bytes(os.pread(self.memory.fd, 4, self._at(slot) + at), "little")

    def waiting(self) -> list[bytes]:
        """The frames that may be taken, from the head on."""
        found: list[bytes] = []
        while len(found) < SLOTS:
            slot = self.head + len(found)
            if self._number(slot, STATUS_AT) != TP_STATUS_SEND_REQUEST:
                break
            length = self._number(slot, LENGTH_AT) - ring.VNET_BYTES
            found.append(os.pread(self.memory.fd, length, self._at(slot) + FRAME_AT))
        return found

    def take(self, count: int) -> None:
        for _ in range(count):
            status = TP_STATUS_AVAILABLE.to_bytes(4, "little")
            os.pwrite(self.memory.fd, status, self._at(self.head) + STATUS_AT)
            self.head += 1

    def ask(self) -> None:
        """The worker hands over what is pending, and looks at what has been taken."""
        assert self.node.worker.run(self._wake, 0) == ring.WAKE_CONTROL

    def put(self, many: list[Flow]) -> None:
        """A burst of these flows' packets."""
        before = self.node.tables.slot(0).seen
        with block_of([flow.packet() for flow in many]) as memory:
            take(self.node, memory)
        assert self.node.tables.slot(0).seen - before == len(many)

    def counted(self) -> Counter[str]:
        """Packets by backend since the beginning."""
        totals = self.node.tables.totals().backends
        return Counter({name: n.packets for (_pool, name), n in totals.items() if n.packets})

    def drops(self) -> dict[str, int]:
        drops = self.node.tables.totals().drops
        return {name: n - self._begin.drops[name] for name, n in drops.items() if n}


@pytest.fixture
def kernel(make_bench: BenchMaker) -> Iterator[Kernel]:
    kernel = Kernel(make_bench(state(members())))
    yield kernel
    kernel.close()


def backends(many: list[Flow]) -> Counter[str]:
    return Counter(chosen(state(members()), flow) for flow in many)


def frames(kernel: Kernel, many: list[Flow]) -> list[bytes]:
    return [kernel.node.wrapped(flow.packet())[1] for flow in many]


def test_what_has_been_taken_is_counted_and_nothing_else(kernel: Kernel) -> None:
    """In bursts of any size, taken by any numbers, round and round the ring."""
    rng = random.Random(9)
    stream = flows(120)
    pending: deque[Flow] = deque()
    taken: list[Flow] = []
    while len(taken) < 100:
        burst = [stream.pop() for _ in range(rng.randint(0, SLOTS - len(pending)))]
        if burst:
            kernel.put(burst)
        pending += burst
        assert kernel.waiting() == frames(kernel, list(pending))
        count = rng.randint(min(1, len(pending)), len(pending))
        kernel.take(count)
        taken += [pending.popleft() for _ in range(count)]
        kernel.ask()
        assert kernel.counted() == backends(taken)
        assert kernel.drops() == {}


def test_what_finds_no_room_is_counted_at_once(kernel: Kernel) -> None:
    many = flows(SLOTS + 3)
    kernel.put(many)
    assert kernel.waiting() == frames(kernel, many[:SLOTS])
    assert (kernel.counted(), kernel.drops()) == (Counter(), {"tx_ring_full": 3})


@pytest.mark.parametrize("count", [1, 2, SLOTS])
def test_the_newest_takes_the_place_of_one_that_is_refused(kernel: Kernel, count: int) -> None:
    """After so many sends, not before; the frames between do not move."""
    first, *others = flows(count)
    kernel.put([first, *others])  # the first send
    for _ in range(PATIENCE - 2):
        kernel.ask()
    assert kernel.waiting() == frames(kernel, [first, *others])
    kernel.ask()
    left = [*others[-1:], *others[:-1]]
    assert kernel.waiting() == frames(kernel, left)
    kernel.take(len(left))
    kernel.ask()
    assert kernel.counted() == backends(others)
    assert kernel.drops() == {"tx_refused": 1}
    later = flows(SLOTS, first=0x30000000)
    kernel.put(later)
    assert kernel.waiting() == frames(kernel, later)


def test_progress_gives_the_head_new_patience(kernel: Kernel) -> None:
    many = flows(SLOTS)
    kernel.put(many)
    for _ in range(SLOTS - 1):
        for _ in range(PATIENCE - 2):
            kernel.ask()
        kernel.take(1)
        kernel.ask()  # the new head's first
    assert kernel.waiting() == frames(kernel, many[-1:])
    assert (kernel.counted(), kernel.drops()) == (backends(many[:-1]), {})


def test_a_ring_that_goes_takes_back_what_is_pending(kernel: Kernel) -> None:
    """What was taken before is forwarded; the rest never goes out."""
    many = flows(5)
    kernel.put(many)
    kernel.take(2)
    kernel.node.worker.remove_tx(0)
    assert kernel.waiting() == []
    assert kernel.counted() == backends(many[:2])
    assert kernel.drops() == {"tx_link_down": 3}
