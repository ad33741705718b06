"""The receiving half without a kernel: frame, slot and block as the ring says, and positions."""

import os
from collections.abc import Iterator, Sequence

import pytest

from lbfwd import ring
from tests.packet import bench
from tests.packet.bench import Bench, BenchMaker
from tests.packet.crafted import frame
from tests.packet.memory import published
from tests.packet.rings import (
    PACKET_BROADCAST,
    PACKET_HOST,
    PACKET_OTHERHOST,
    TAGGED,
    TP_STATUS_KERNEL,
    V2,
    V3,
    MemoryRing,
    Received,
    drain,
)


@pytest.fixture
def node(make_bench: BenchMaker) -> Bench:
    return make_bench(bench.all_combinations())


@pytest.fixture
def v2_ring() -> Iterator[MemoryRing]:
    memory = MemoryRing(V2)
    yield memory
    os.close(memory.fd)


@pytest.fixture
def v3_ring() -> Iterator[MemoryRing]:
    memory = MemoryRing(V3)
    yield memory
    os.close(memory.fd)


def flow(number: int) -> Received:
    return Received(frame(4, "tcp", payload=bytes([number])))


def wrapped(node: Bench, packets: Sequence[Received]) -> list[bytes]:
    return [node.wrapped(packet.data)[1] for packet in packets]


ONE_BY_ONE = [
    ("cut_by_ring", Received(frame(4, "tcp"), missing=1)),
    ("other_host", Received(frame(4, "tcp"), packet_type=PACKET_OTHERHOST)),
    ("vlan_tagged", Received(frame(4, "tcp"), TAGGED, tci=1)),
    ("vlan_tagged", Received(frame(4, "tcp"), TAGGED, tci=0xEFFF)),
    ("not_ip", Received(bytes(64))),
    ("truncated", Received(b"")),
]


@pytest.mark.parametrize(("reason", "packet"), ONE_BY_ONE)
def test_what_the_ring_says_of_a_frame_v2(
    node: Bench, v2_ring: MemoryRing, reason: str, packet: Received
) -> None:
    v2_ring.put_v2(0, [packet])
    node.assert_dropped(drain(node, v2_ring), reason)
    assert v2_ring.status_v2(0) == TP_STATUS_KERNEL


@pytest.mark.parametrize(("reason", "packet"), ONE_BY_ONE)
def test_what_the_ring_says_of_a_frame_v3(
    node: Bench, v3_ring: MemoryRing, reason: str, packet: Received
) -> None:
    v3_ring.put_block(0, 1, [packet])
    node.assert_dropped(drain(node, v3_ring), reason)
    assert v3_ring.status_block(0) == TP_STATUS_KERNEL


@pytest.mark.parametrize("packet_type", [PACKET_HOST, PACKET_BROADCAST])
def test_v2_slots_in_order(node: Bench, v2_ring: MemoryRing, packet_type: int) -> None:
    packets = [Received(flow(n).data, packet_type=packet_type) for n in range(5)]
    v2_ring.put_v2(0, packets)
    outcome = drain(node, v2_ring)
    assert outcome.frames == wrapped(node, packets)
    assert outcome.forwarded == outcome.seen == 5
    assert [v2_ring.status_v2(n) for n in range(8)] == [TP_STATUS_KERNEL] * 8


def test_a_priority_tag_is_no_vlan(node: Bench, v2_ring: MemoryRing, v3_ring: MemoryRing) -> None:
    """IEEE 802.1Q: VID 0 says only which priority the frame has."""
    packet = Received(frame(4, "tcp"), TAGGED, tci=0xE000)
    v2_ring.put_v2(0, [packet])
    v3_ring.put_block(0, 1, [packet])
    for memory in (v2_ring, v3_ring):
        node.assert_forwarded(packet.data, drain(node, memory), [packet.data[14:]])


def test_v3_blocks_in_order_of_their_sequence(node: Bench, v3_ring: MemoryRing) -> None:
    """The oldest block is number 2: there the worker begins, and goes on around the ring."""
    packets = [flow(n) for n in range(9)]
    v3_ring.put_block(2, 7, packets[:3])
    v3_ring.put_block(3, 8, packets[3:4])
    v3_ring.put_block(0, 9, packets[4:])
    outcome = drain(node, v3_ring)
    assert outcome.frames == wrapped(node, packets)
    assert outcome.forwarded == outcome.seen == 9
    assert [v3_ring.status_block(n) for n in range(4)] == [TP_STATUS_KERNEL] * 4


def test_v3_more_packets_than_a_burst(make_bench: BenchMaker) -> None:
    node = make_bench(bench.all_combinations(), tx_slots=512)
    memory = MemoryRing(ring.Geometry(3, 65536, 1, 2048, 1))
    packets = [flow(n) for n in range(2 * ring.BURST + 5)]
    memory.put_block(0, 1, packets)
    outcome = drain(node, memory)
    os.close(memory.fd)
    assert outcome.frames == wrapped(node, packets)
    assert node.tables.slot(0).bursts == 3


def test_a_successor_does_not_replay_a_burst_v3(node: Bench, v3_ring: MemoryRing) -> None:
    """A worker that died in a block had saved how far it was before it forwarded."""
    packets = [flow(n) for n in range(6)]
    v3_ring.put_block(1, 42, packets)
    save_position(node, v3_ring, sequence=42, index=1, done=4)
    outcome = drain(node, v3_ring)
    assert outcome.frames == wrapped(node, packets[4:])
    assert outcome.seen == 2
    assert v3_ring.status_block(1) == TP_STATUS_KERNEL


def test_a_successor_passes_over_a_block_that_was_all_taken_v3(
    node: Bench, v3_ring: MemoryRing
) -> None:
    v3_ring.put_block(1, 42, [flow(n) for n in range(3)])
    v3_ring.put_block(2, 43, [flow(9)])
    save_position(node, v3_ring, sequence=42, index=1, done=3)
    assert drain(node, v3_ring).frames == wrapped(node, [flow(9)])
    assert v3_ring.status_block(1) == v3_ring.status_block(2) == TP_STATUS_KERNEL


def test_another_blocks_position_means_nothing_v3(node: Bench, v3_ring: MemoryRing) -> None:
    packets = [flow(n) for n in range(3)]
    v3_ring.put_block(1, 43, packets)
    save_position(node, v3_ring, sequence=42, index=1, done=2)
    assert drain(node, v3_ring).frames == wrapped(node, packets)


def test_a_successor_does_not_replay_a_burst_v2(node: Bench, v2_ring: MemoryRing) -> None:
    """Slots 1 to 3 were the burst that killed its worker; 4 and 5 came afterwards."""
    packets = [flow(n) for n in range(5)]
    v2_ring.put_v2(1, packets)
    save_position(node, v2_ring, sequence=0, index=4, done=3)
    outcome = drain(node, v2_ring)
    assert outcome.frames == wrapped(node, packets[3:])
    assert [v2_ring.status_v2(n) for n in range(8)] == [TP_STATUS_KERNEL] * 8


@pytest.mark.parametrize("done", [ring.BURST + 1, 0xFFFFFFFF])
@pytest.mark.parametrize("index", [8, 0xFFFFFFFF])
@pytest.mark.parametrize("geometry", [V2, V3], ids=["v2", "v3"])
def test_a_senseless_position_is_survived(
    node: Bench, geometry: ring.Geometry, index: int, done: int
) -> None:
    memory = MemoryRing(geometry)
    packets = [flow(n) for n in range(3)]
    if geometry.version == 2:
        memory.put_v2(0, packets)
    else:
        memory.put_block(0, 5, packets)
    save_position(node, memory, sequence=5, index=index, done=done)
    outcome = drain(node, memory)
    os.close(memory.fd)
    assert outcome.frames == (wrapped(node, packets) if geometry.version == 2 else [])


@pytest.mark.parametrize("geometry", [V2, V3], ids=["v2", "v3"])
def test_another_rings_position_means_nothing(node: Bench, geometry: ring.Geometry) -> None:
    """A worker was killed, then its interface was made again: a new ring at the same index."""
    old, new = MemoryRing(geometry), MemoryRing(geometry)
    packets = [flow(n) for n in range(3)]
    if geometry.version == 2:
        new.put_v2(0, packets)
    else:
        new.put_block(0, 5, packets)
    save_position(node, old, sequence=5, index=2, done=2)
    assert drain(node, new).frames == wrapped(node, packets)
    os.close(old.fd)
    os.close(new.fd)


def test_a_removed_ring_leaves_no_position_behind(node: Bench, v3_ring: MemoryRing) -> None:
    v3_ring.put_block(0, 1, [flow(1)])
    assert drain(node, v3_ring).forwarded == 1
    other = MemoryRing(V3)
    other.put_block(0, 1, [flow(2), flow(3)])
    assert drain(node, other).forwarded == 2
    os.close(other.fd)


def test_ring_indices_and_shapes_are_checked(node: Bench, v3_ring: MemoryRing) -> None:
    add = node.worker.add_rx
    with pytest.raises(OSError, match="map RX ring 16: Invalid argument"):
        add(ring.MAX_RX, v3_ring.fd, V3)
    with pytest.raises(OSError, match="map RX ring 0: Invalid argument"):
        add(0, v3_ring.fd, ring.Geometry(1, 16384, 4, 2048))
    with pytest.raises(OSError, match="map RX ring 0: Invalid argument"):
        add(0, v3_ring.fd, ring.Geometry(2, 16384, 4, 0))
    with pytest.raises(OSError, match="map RX ring 0: Bad file descriptor"):
        add(0, 999, V3)
    add(0, v3_ring.fd, V3)
    with pytest.raises(OSError, match="map RX ring 0: File exists"):
        add(0, v3_ring.fd, V3)
    with pytest.raises(OSError, match="remove RX ring 1: No such file"):
        node.worker.remove_rx(1)
    with pytest.raises(OSError, match="map TX ring 32: Invalid argument"):
        node.worker.add_tx(ring.MAX_TX, -1, ring.tx_geometry(4, 1500))
    with pytest.raises(OSError, match="map TX ring 5: Invalid argument"):
        node.worker.add_tx(5, -1, ring.Geometry(3, 4096, 1, 64))
    with pytest.raises(OSError, match="remove TX ring 5: No such file"):
        node.worker.remove_tx(5)


def save_position(node: Bench, memory: MemoryRing, sequence: int, index: int, done: int) -> None:
    with published(node.tables) as state:
        position = state.control.slots[0].rx[0]
        position.ring = os.fstat(memory.fd).st_ino
        position.sequence, position.index, position.done = sequence, index, done
