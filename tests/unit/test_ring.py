"""Hashes against siphash24, shapes of rings, and errors that say what went wrong."""

import os
import random
from collections.abc import Callable
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbfwd import ring
from tests.oracle import siphash

PORT = st.integers(0, 65535)
SECRET = st.binary(min_size=16, max_size=16)
PAGE = 4096  # blocks are whole pages
NOBODY = 2**31 - 1  # an interface index
TX_HEADERS = 48 + 10  # in front of the frame in a TX slot: ring header, offload header


def keys(version: Literal[4, 6]) -> st.SearchStrategy[bytes]:
    """Flow keys of one family."""
    address = st.ip_addresses(v=version)
    return st.builds(siphash.flow_key, address, address, PORT, PORT, st.integers(0, 255))


@given(keys(4), SECRET)
def test_the_hash_of_an_ipv4_flow(key: bytes, secret: bytes) -> None:
    assert len(key) == 13
    assert ring.flow_hash(key, secret) == siphash.flow_hash(key, secret)


@given(keys(6), SECRET)
def test_the_hash_of_an_ipv6_flow(key: bytes, secret: bytes) -> None:
    assert len(key) == 37
    assert ring.flow_hash(key, secret) == siphash.flow_hash(key, secret)


@given(st.binary(max_size=64), SECRET)
def test_the_hash_of_any_length(key: bytes, secret: bytes) -> None:
    assert ring.flow_hash(key, secret) == siphash.flow_hash(key, secret)


@given(st.integers(0, 2**64 - 1), st.integers(2, 2**32 - 1))
def test_the_bucket(value: int, size: int) -> None:
    bucket = ring.bucket(value, size)
    assert bucket == siphash.bucket(value, size)
    assert 0 <= bucket < size


def test_buckets_are_spread_evenly() -> None:
    """10,000 flows over 10 buckets: each within 5 standard deviations of 1,000."""
    rng = random.Random(3)
    secret = rng.randbytes(16)
    counts = [0] * 10
    for _ in range(10_000):
        counts[ring.bucket(ring.flow_hash(rng.randbytes(13), secret), 10)] += 1
    assert all(850 < count < 1150 for count in counts), counts


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="15"):
        ring.flow_hash(bytes(13), bytes(15))


def test_drop_reasons_are_named_as_the_contract_names_them() -> None:
    assert ring.DROP_REASONS[0] == "none"
    assert ring.DROP_REASONS[-1] == "worker_died"
    assert len(set(ring.DROP_REASONS)) == len(ring.DROP_REASONS) <= 64
    assert all(name.replace("_", "").isalnum() and name.islower() for name in ring.DROP_REASONS)


@pytest.mark.parametrize("frames", [256, 4096, 65536])
@pytest.mark.parametrize("mtu", [68, 1280, 1500, 9000, 65535])
def test_tx_rings_hold_frames_of_the_mtu(frames: int, mtu: int) -> None:
    shape = ring.tx_geometry(frames, mtu)
    assert shape.block_bytes * shape.blocks == frames * shape.frame_bytes
    assert shape.frame_bytes >= TX_HEADERS + 14 + max(mtu, 1280)
    assert shape.block_bytes % shape.frame_bytes == shape.block_bytes % PAGE == 0
    assert (shape.version, shape.retire_ms) == (3, 0)


@pytest.mark.parametrize(("mib", "block_kib"), [(1, 128), (64, 1024), (4096, 4096)])
def test_v3_rx_rings(mib: int, block_kib: int) -> None:
    shape = ring.rx_geometry("v3", mib, block_kib, 7)
    assert shape.block_bytes * shape.blocks == mib << 20
    assert (shape.version, shape.block_bytes, shape.retire_ms) == (3, block_kib << 10, 7)


@pytest.mark.parametrize("mtu", [68, 1500, 9000, 65535])
@pytest.mark.parametrize(("mib", "block_kib"), [(1, 128), (64, 1024)])
def test_v2_slots_hold_frames_of_the_mtu(mib: int, block_kib: int, mtu: int) -> None:
    shape = ring.rx_geometry("v2", mib, block_kib, 1, mtu)
    assert shape.version == 2
    assert shape.frame_bytes >= 32 + 20 + 14 + 10 + 14 + mtu
    assert shape.block_bytes % shape.frame_bytes == shape.block_bytes % PAGE == 0
    assert shape.block_bytes * shape.blocks == mib << 20


def open_rx() -> None:
    ring.RxSocket.open("eth7", NOBODY, ring.rx_geometry("v3", 1, 128, 1))


def open_tx() -> None:
    ring.TxSocket.open("eth7", NOBODY, ring.tx_geometry(256, 1500), qdisc_bypass=False)


@pytest.mark.parametrize("attempt", [open_rx, open_tx])
def test_errors_name_the_interface_and_the_step(attempt: Callable[[], None]) -> None:
    """Who has no privilege does not come as far as to the interface that nobody has."""
    with pytest.raises(OSError, match="eth7: ") as caught:
        attempt()
    assert caught.value.strerror in (
        "eth7: bind: No such device",
        "eth7: open a packet socket: Operation not permitted",
    )


def test_a_worker_of_an_impossible_slot_is_refused() -> None:
    fd = os.memfd_create("lbfwd-test")
    try:
        with pytest.raises(OSError, match="worker: map the shared state: Invalid argument"):
            ring.Worker(ring.MAX_WORKERS, fd, fd, fd, fd)
    finally:
        os.close(fd)
