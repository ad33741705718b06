"""Whatever comes in, the worker lives, and every packet ends in exactly one counter."""

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.packet import bench, corpus
from tests.packet.bench import Bench
from tests.packet.crafted import mended


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    directory: Path = tmp_path_factory.mktemp("node")
    node = Bench(directory, bench.all_combinations())
    yield node
    node.close()


ANSWERS = ("too_big_sent", "reset_sent", "unreachable_sent")
WHILE_MS = 600  # longer than a fragment waits for its first
clock = itertools.count(1_000_000, 2 * WHILE_MS)


def check_counters(node: Bench, header: bytes, data: bytes) -> None:
    now = next(clock)
    before, seen = node.tables.totals(), node.tables.slot(0).seen
    node.worker.forward(data, header, now)
    node.worker.forward(b"", now_ms=now + WHILE_MS)  # truncated; what was held is dropped
    outcome = node.outcome(before, seen)
    dropped = sum(outcome.drops.values())
    answered = sum(outcome.events.get(name, 0) for name in ANSWERS)
    assert outcome.drops["truncated"] >= 1
    assert outcome.seen == outcome.forwarded + dropped
    assert outcome.forwarded == sum(c.packets for c in outcome.backends.values())
    answered += outcome.drops.get("echo_answered", 0)
    assert len(outcome.frames) == outcome.forwarded + answered
    assert answered <= 1
    if header[1] and outcome.forwarded:
        assert set(outcome.drops) <= {"truncated", "tx_ring_full"}
    elif not header[1] and "packet_split" not in outcome.events:
        assert outcome.seen == 2, "one frame, one counter"
    for sent in outcome.frames:
        assert len(sent) <= 14 + bench.MTU


@given(data=st.binary(max_size=200), header=st.binary(min_size=10, max_size=10))
@settings(max_examples=600)
def test_random_bytes(node: Bench, data: bytes, header: bytes) -> None:
    check_counters(node, header, data)


@given(
    ethertype=st.sampled_from([b"\x08\x00", b"\x86\xdd"]),
    data=st.binary(max_size=120),
    header=st.binary(min_size=10, max_size=10),
)
@settings(max_examples=600)
def test_random_ip_packets(node: Bench, ethertype: bytes, data: bytes, header: bytes) -> None:
    check_counters(node, header, mended(bytes(12) + ethertype + data))


@given(seed=st.integers(min_value=0))
@settings(max_examples=6000)
def test_good_frames_made_worse(node: Bench, seed: int) -> None:
    rng = random.Random(seed)
    check_counters(node, *corpus.mutate(rng, rng.choice(corpus.seeds())))


@pytest.mark.parametrize("length", [0, 1, 13, 14, 15, 33, 34, 53, 54, 65535, 70000])
def test_lengths(node: Bench, length: int) -> None:
    for fill in (b"\0", b"\x45", b"\x60", b"\xff"):
        for ethertype in (b"\x08\x00", b"\x86\xdd", fill * 2):
            check_counters(node, bytes(10), (bytes(12) + ethertype + fill * length)[:length])


def test_a_frame_shorter_than_its_offload_header_is_refused(node: Bench) -> None:
    with pytest.raises(OSError, match="worker: forward: Invalid argument"):
        node.worker.forward(b"", offload=bytes(9))
