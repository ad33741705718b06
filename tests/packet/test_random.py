"""Whatever comes in, the worker lives, and every packet ends in exactly one counter."""

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


def check_counters(node: Bench, header: bytes, data: bytes) -> None:
    outcome = node.forward(data, offload=header)
    dropped = sum(outcome.drops.values())
    assert outcome.seen == outcome.forwarded + dropped
    assert outcome.forwarded == sum(c.packets for c in outcome.backends.values())
    assert outcome.forwarded == len(outcome.frames)
    is_super_frame = header[1] != 0
    if is_super_frame and outcome.forwarded:
        assert set(outcome.drops) <= {"tx_ring_full"}
    elif not is_super_frame:
        assert outcome.seen == 1, "one frame, one counter"
        assert len(outcome.drops) + len(outcome.services) == 1
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
