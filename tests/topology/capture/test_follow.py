"""A capture beside a node that changes: what comes is captured, what goes is told.

client c0 ──── n0 node n1 ──── f0 farm        (tests/topology/node/stage.py)
client c1 ──── n2  "                          from the reload on
"""

import signal
from collections import Counter
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from tests.oracle.encap import inner_packet, unwrapped
from tests.topology.capture.test_capture import Capture, Row, destination
from tests.topology.node.stage import CONFIG, VIP4, Node, Stage, running
from tests.topology.node.test_oracle import is_gre
from tests.topology.node.wires import frames

pytestmark = pytest.mark.topology

FLOWS = 40
NEW_VIP, NEW_BACKEND = "192.0.2.20", "10.0.0.14"
SERVICE = f"""
[[service]]
name = "new"
vip = "{NEW_VIP}"
protocol = "tcp"
pool = "four"
"""
BOTH = CONFIG.replace('interfaces = ["n0"]', 'interfaces = ["n0", "n2"]')
MORE = BOTH.replace('{ address = "10.0.0.13" }', f'{{ address = "{NEW_BACKEND}" }}') + SERVICE


def flows(stage: Stage, vip: str, interfaces: tuple[str, str]) -> list[bytes]:
    ends = (stage.client, interfaces[0]), (stage.node, interfaces[1])
    ether = Ether(**dict(zip(("src", "dst"), (stage.mac(*end) for end in ends), strict=True)))
    return [
        bytes(ether / IP(src="198.51.100.77", dst=vip) / TCP(sport=port, dport=80) / Raw(b"x" * 40))
        for port in range(5000, 5000 + FLOWS)
    ]


def send(stage: Stage, interfaces: tuple[str, str], vip: str) -> list[bytes]:
    sent = flows(stage, vip, interfaces)
    with stage.tap(stage.client, interfaces[0]) as source:
        for frame in sent:
            source.send(frame)
    return sent


def by_side(rows: list[Row], side: str) -> list[Row]:
    return [row for row in rows if row.words["packet"] == side]


def reloaded(node: Node, config: str) -> None:
    done = node.reload(config)
    assert done.returncode == 0, done.stderr


def second_wire(stage: Stage) -> None:
    stage.lab.link(stage.client, "c1", ["198.51.101.2/24"], stage.node, "n2", ["198.51.101.1/24"])


def test_a_capture_follows_the_node(tmp_path: Path) -> None:
    with running(tmp_path) as (stage, node):
        stage.farm.run("ip", "address", "add", f"{NEW_BACKEND}/24", "dev", "f0")
        second_wire(stage)
        sink = stage.tap(stage.farm, "f0")
        whole = Capture(node, tmp_path / "whole.pcapng")
        try:
            sent = send(stage, ("c0", "n0"), VIP4)
            reloaded(node, MORE)
            came = (f"service new (tcp {NEW_VIP}, port any)", "interface n2", NEW_BACKEND)
            for text in (*came, "no more: backend four/10.0.0.13"):
                whole.says(text)
            sent += send(stage, ("c0", "n0"), NEW_VIP)
            sent += send(stage, ("c1", "n2"), NEW_VIP)
            node.until(lambda _status: node.forwarded() == len(sent), "all is forwarded")
            tunnelled = [frame for frame in frames(sink) if is_gre(frame)]
            said = whole.end(signal.SIGINT)
        finally:
            whole.process.kill()
        assert "what is captured changed" in said
        rows = whole.rows()
        # Each packet, once on each side, as the client sent it and as the farm has got it.
        before, after = by_side(rows, "before"), by_side(rows, "after")
        assert sorted(row.data for row in before) == sorted(sent)
        assert sorted(row.data for row in after) == sorted(tunnelled)
        assert Counter(row.interface for row in before) == {"n0": 2 * FLOWS, "n2": FLOWS}
        # What is new has its names, on both sides.
        of_new = [row for row in rows if row.words["service"] == "new"]
        assert len(of_new) == 4 * FLOWS
        assert {row.words["backend"] for row in by_side(of_new, "before")} == {
            str(destination(row.data)) for row in by_side(of_new, "after")
        }
        assert NEW_BACKEND in {row.words["backend"] for row in of_new}
        assert Counter(inner_packet(row.data) for row in before) == Counter(
            unwrapped(row.data) for row in after
        )


@pytest.mark.slow
def test_what_is_not_there_any_more_is_told_and_taken_up_again(tmp_path: Path) -> None:
    """The service that is captured goes and comes back; so does an interface, and lbfwd itself."""
    with running(tmp_path, CONFIG + SERVICE) as (stage, node):
        one = Capture(node, tmp_path / "one.pcapng", "--service", "new")
        try:
            first = send(stage, ("c0", "n0"), NEW_VIP)
            reloaded(node, CONFIG)
            one.says("--service new: no such service; nothing is captured until there is")
            second_wire(stage)
            reloaded(node, BOTH + SERVICE)
            one.says("captures again what was asked for")
            second = send(stage, ("c1", "n2"), NEW_VIP)
            node.until(lambda _status: node.forwarded() >= FLOWS, "forwarded")
            stage.node.run("ip", "link", "delete", "n2")
            one.says("no more: interface n2")
            second_wire(stage)
            one.says("also captures interface n2")
            third = send(stage, ("c1", "n2"), NEW_VIP)
            node.until(lambda _status: node.forwarded() >= 2 * FLOWS, "forwarded")
            assert node.stop() == 0
            one.says("goes on with what it knows")
            said = one.end(signal.SIGTERM)
        finally:
            one.process.kill()
        assert "it showed less than was asked for: " in said
        received = by_side(one.rows(), "before")
        assert sorted(row.data for row in received) == sorted(first + second + third)
        assert {row.words["service"] for row in received} == {"new"}
