"""What the kernel refuses to send is counted and does not hold the rest up."""

import os
import signal
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from tests.topology.node.stage import CONFIG, VIP4, Stage, running
from tests.topology.node.test_oracle import is_gre
from tests.topology.node.wires import frames

pytestmark = pytest.mark.topology

PAIRS = 200


def datagram(stage: Stage, port: int, size: int) -> bytes:
    ethernet = Ether(src=stage.mac(stage.client, "c0"), dst=stage.mac(stage.node, "n0"))
    return bytes(
        ethernet / IP(src="198.51.100.2", dst=VIP4) / UDP(sport=port, dport=9) / Raw(bytes(size))
    )


def test_a_refused_frame_does_not_block_the_others(tmp_path: Path) -> None:
    """The far end takes less than our link's MTU says: the device refuses large frames."""
    with running(tmp_path) as (stage, node):
        stage.farm.run("ip", "link", "set", "f0", "mtu", "1300")
        source, sink = stage.tap(stage.client, "c0"), stage.tap(stage.farm, "f0")
        large, small = datagram(stage, 5000, 1400), datagram(stage, 5001, 100)
        for _ in range(PAIRS):
            source.send(large)
            source.send(small)
        node.until(lambda s: sum(w["seen"] for w in s["workers"]) == 2 * PAIRS, "all were seen")
        status = node.until(lambda s: s["drops"]["tx_refused"] == PAIRS, "the large are refused")
        assert sum(status["drops"].values()) == PAIRS
        assert sum(service["packets"] for service in status["services"]) == PAIRS
        got = [frame for frame in frames(sink) if is_gre(frame)]
        assert len(got) == PAIRS
        assert all(frame.endswith(bytes(100)) for frame in got)


def test_sighup_reloads(tmp_path: Path) -> None:
    with running(tmp_path) as (_stage, node):
        node.file.write_text(CONFIG.replace('"fd00::13" }', '"fd00::13", weight = 0 }'))
        os.kill(node.process.pid, signal.SIGHUP)
        status = node.until(lambda s: s["generation"] == 2, "the file is taken up")
        six = next(pool for pool in status["pools"] if pool["name"] == "six")
        assert [backend["slots"] > 0 for backend in six["backends"]] == [True, True, False]
        node.file.write_text("nonsense")
        os.kill(node.process.pid, signal.SIGHUP)
        node.until(lambda _s: bool(node.events("reload_refused")), "the bad file is refused")
        assert node.status()["generation"] == 2
