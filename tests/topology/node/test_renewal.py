"""Workers and rings replaced by a reload, under traffic: nothing is lost, nothing doubled."""

from pathlib import Path

import pytest
from scapy.layers.inet import IP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from tests.topology.node.stage import CONFIG, VIP4, Stage, running
from tests.topology.node.test_changes import FLOWS, Traffic, in_order_by_flow

pytestmark = pytest.mark.topology

# Blocks of 4 ms: packets can wait for 2 s, on a machine that is busy with other things.
BASE = CONFIG.replace("tx_ring_frames = 1024", "tx_ring_frames = 1024\nrx_retire_ms = 4")
OLD = "tx_ring_frames = 1024\nrx_retire_ms = 4"
SETTINGS = {
    "busy_poll_us": f"{OLD}\nbusy_poll_us = 100",
    "rx_ring_mib": f"{OLD}\nrx_ring_mib = 96",
    "rx_retire_ms": "tx_ring_frames = 1024\nrx_retire_ms = 8\nrx_block_kib = 256",
    "ring": f'{OLD}\nring = "v2"',
    "tx_ring_frames": "tx_ring_frames = 512\nrx_retire_ms = 4",
    "qdisc_bypass": f"{OLD}\nqdisc_bypass = true",
}
SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in SETTINGS]


@pytest.mark.parametrize("kind", ["all", *SLOW])
def test_settings_of_workers_change_without_a_packet_lost(tmp_path: Path, kind: str) -> None:
    """There and back again, by one key; ``all``: by one of each kind at a time."""
    lines = SETTINGS[kind] if kind != "all" else f"{SETTINGS['ring']}\nbusy_poll_us = 50"
    other = BASE.replace(OLD, lines)
    if kind == "all":
        other = other.replace("cpus = [0, 1]", 'cpus = [1, 0]\nfanout = "cpu"')
    with running(tmp_path, BASE) as (stage, node):
        pids = [worker["pid"] for worker in node.status()["workers"]]
        with Traffic(stage, node) as traffic:
            for config in (other, BASE, other):
                done = node.reload(config)
                assert done.returncode == 0, done.stderr
                traffic.moment()
            sent, arrived = traffic.finish()
        forwarded, drops, seen = traffic.growth()
        workers = node.status()["workers"]
        assert drops == {}
        assert not any(ring["drops"] for worker in workers for ring in worker["rings"])
        assert sorted(arrived) == list(range(sent)), "everything arrives, and once"
        assert forwarded == sum(seen) == sent
        replaced = [worker["pid"] != pid for worker, pid in zip(workers, pids, strict=True)]
        assert replaced == [kind in ("busy_poll_us", "all")] * 2, "a ring needs no new process"
        assert [worker["restarts"] for worker in workers] == [0, 0]
        if kind != "all":  # there the fanout program changes, too: flows go to another worker
            assert in_order_by_flow(arrived)
        assert not node.events("worker_died")
        assert len(node.events("ring_closed")) >= (0 if kind == "busy_poll_us" else 3)


@pytest.mark.slow
def test_fragments_that_a_replaced_worker_keeps_have_their_reason(tmp_path: Path) -> None:
    """Fragments whose first never comes wait in the worker, for 0.5 s; it is replaced meanwhile."""
    other = BASE.replace(OLD, SETTINGS["busy_poll_us"])
    with running(tmp_path, BASE) as (stage, node):
        with Traffic(stage, node, mixed_in=[later_fragment(stage)]) as traffic:
            for config in (other, BASE):
                done = node.reload(config)
                assert done.returncode == 0, done.stderr
                traffic.moment()
            sent, _arrived = traffic.finish()
        fragments = sent // (FLOWS + 1)
        node.until(
            lambda _status: sum(traffic.growth()[1].values()) >= fragments, "their time is over"
        )
        forwarded, drops, seen = traffic.growth()
        assert forwarded + drops.total() == sum(seen) == sent
        assert set(drops) == {"fragment_unmatched"}
        assert drops.total() in (fragments, fragments + 1)
        assert len(node.events("worker_replaced")) == 4


def later_fragment(stage: Stage) -> bytes:
    ether = Ether(src=stage.mac(stage.client, "c0"), dst=stage.mac(stage.node, "n0"))
    return bytes(
        ether / IP(src="198.51.100.2", dst=VIP4, proto=17, id=7, frag=100) / Raw(bytes(24))
    )
