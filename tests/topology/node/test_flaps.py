"""A link that flaps while rings are handed over: afterwards each flow is its own worker's again.

client c0 ──── n0 node n1 ──── f0 farm        (tests/topology/node/stage.py)
               ↑ goes down and up while rings of another size take the place of the old ones

The kernel numbers the members of a fanout group anew when a link comes up, in another order than
the one that a hand-over makes (lbfwd/net/fanout.py).
"""

import json
import random
import threading
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from lbfwd.api.client import request
from lbfwd.demo.lab import eventually
from tests.topology.node.stage import CONFIG, VIP4, Node, Stage, running

pytestmark = pytest.mark.topology

PORTS = range(10_000, 10_016)
COPIES = 5
DEADLINE_S = 20
SIZES = [CONFIG.replace("tx_ring_frames", f"rx_ring_mib = {mib}\ntx_ring_frames") for mib in (8, 9)]


class Flapping(threading.Thread):
    """Takes the node's n0 down and up, at random moments, until told to end; then it is up."""

    def __init__(self, stage: Stage, dice: random.Random) -> None:
        super().__init__(daemon=True)
        self._stage, self._dice = stage, dice
        self._ended = threading.Event()
        self.flaps = 0

    def run(self) -> None:
        while not self._ended.wait(self._dice.uniform(0, 0.06)):
            self._stage.node.run("ip", "-b", "-", stdin="link set n0 down\nlink set n0 up\n")
            self.flaps += 1

    def __enter__(self) -> "Flapping":
        self.start()
        return self

    def __exit__(self, *_rest: object) -> None:
        self._ended.set()
        self.join()


def frames(stage: Stage) -> dict[int, bytes]:
    ether = Ether(src=stage.mac(stage.client, "c0"), dst=stage.mac(stage.node, "n0"))
    ip = IP(src="198.51.100.2", dst=VIP4)
    return {port: bytes(ether / ip / UDP(sport=port, dport=9) / Raw(bytes(16))) for port in PORTS}


def ask(node: Node, what: str) -> Any:
    """Ask at the admin socket: the command would take its time to start."""
    return json.loads(request(node.runtime / "admin.sock", "GET", f"/v1/{what}"))


def owners(node: Node) -> dict[int, list[int]]:
    """The ports of each worker, as trace tells them: by running the fanout program."""
    found: dict[int, list[int]] = {}
    for port in PORTS:
        flow = f"protocol=udp&source=198.51.100.2:{port}&destination={VIP4}:9"
        found.setdefault(ask(node, f"trace?{flow}")["worker"], []).append(port)
    return found


def seen(node: Node) -> list[int]:
    return [worker["seen"] for worker in ask(node, "status")["workers"]]


def readers(stage: Stage, node: Node, sent: list[bytes]) -> list[int]:
    """Send each of these some times; returns how many each worker has read of them."""
    before = seen(node)
    with stage.tap(stage.client, "c0") as source:
        for frame in sent * COPIES:
            source.send(frame)
    count = len(sent) * COPIES
    eventually(lambda: sum(seen(node)) >= sum(before) + count, DEADLINE_S, f"{count} are read")
    return [now - then for now, then in zip(seen(node), before, strict=True)]


def all_read_by_their_own(stage: Stage, node: Node, owned: dict[int, list[bytes]]) -> bool:
    return not any(readers(stage, node, sent)[1 - slot] for slot, sent in owned.items())


def up_again(node: Node) -> bool:
    downs, ups = (len(node.events(f"interface_{state}")) for state in ("down", "up"))
    return ups > downs


def handed_over(node: Node) -> int:
    return sum(event["ring"] == "rx" for event in node.events("ring_closed"))


@pytest.mark.parametrize("rounds", [10, pytest.param(100, marks=pytest.mark.slow)])
def test_each_flow_is_its_workers_after_flaps_in_a_hand_over(tmp_path: Path, rounds: int) -> None:
    dice = random.Random(20261124)
    with running(tmp_path, SIZES[0]) as (stage, node):
        flows, flaps = frames(stage), 0
        owned = {slot: [flows[port] for port in ports] for slot, ports in owners(node).items()}
        assert sorted(owned) == [0, 1], "both workers have flows"
        for turn in range(1, rounds + 1):
            node.file.write_text(SIZES[turn % 2])
            with Flapping(stage, dice) as flapping:
                request(node.runtime / "admin.sock", "POST", "/v1/reload", {}, DEADLINE_S)
            eventually(
                lambda n=turn: handed_over(node) == n, DEADLINE_S, "the old rings are closed"
            )
            eventually(lambda: up_again(node), DEADLINE_S, "lbfwd has seen that n0 is up")
            flaps += flapping.flaps
            # What the last flap did is mended in the pass that notices it.
            eventually(
                lambda: all_read_by_their_own(stage, node, owned),
                DEADLINE_S,
                f"round {turn}: each flow is read by its own worker",
            )
        assert flaps >= rounds
        assert not node.events("worker_died")
