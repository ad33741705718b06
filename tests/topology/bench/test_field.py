"""Nodes that share a stage: each has all packets in its rings, and forwards them when let go."""

import os
from pathlib import Path

import pytest

from bench.rings import Rings
from bench.tuning_field import field
from bench.tuning_settings import Setting

pytestmark = pytest.mark.topology
PACKETS = 500
SMALL = Rings(rx_ring_mib=8, rx_retire_ms=10, tx_ring_frames=256)
SETTINGS = [
    Setting("one", SMALL, flows=4096),
    Setting("another", Rings("v2", rx_ring_mib=8, tx_ring_frames=256), flows=4096),
]


def test_each_node_of_a_field_forwards_all_that_came(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: network namespaces")
    with field(SETTINGS, tmp_path / "field") as course:
        for _ in range(2):
            assert course.fill(PACKETS).sent == PACKETS
            assert [course.empty(setting) for setting in SETTINGS] == [PACKETS, PACKETS]
