"""What happens under traffic: reloads, dead and hung workers, links that come and go.

Traffic is numbered, and counted at both ends: nothing may be lost, doubled, late or uncounted.
"""

import os
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from lbfwd.demo.lab import eventually
from lbfwd.ring import BURST
from tests.topology.node.stage import CONFIG, VIP4, Node, Stage, running
from tests.topology.node.test_oracle import is_gre
from tests.topology.node.wires import Sender, frames, number_of

pytestmark = pytest.mark.topology

FLOWS = 64
MOMENT = 2000  # frames: enough for both workers to be busy meanwhile


def templates(stage: Stage) -> list[bytes]:
    ethernet = Ether(src=stage.mac(stage.client, "c0"), dst=stage.mac(stage.node, "n0"))
    return [
        bytes(
            ethernet / IP(src="198.51.100.2", dst=VIP4) / UDP(sport=port, dport=9) / Raw(bytes(16))
        )
        for port in range(10_000, 10_000 + FLOWS)
    ]


class Traffic:
    """Numbered UDP to the VIP from one end, and what of it came to the other.

    ``mixed_in``: other frames, one of each to FLOWS of those.
    """

    def __init__(
        self, stage: Stage, node: Node, rate: int = 10_000, mixed_in: Sequence[bytes] = ()
    ) -> None:
        self.node = node
        self._sink = stage.tap(stage.farm, "f0")
        sent = [*templates(stage), *mixed_in]
        self._sender = Sender(stage.tap(stage.client, "c0"), sent, rate)
        self._before = node.status()

    def __enter__(self) -> "Traffic":
        self._sender.start()
        self.moment()
        return self

    def __exit__(self, *_rest: object) -> None:
        self._sender.stop()

    def moment(self) -> None:
        """Wait until some more frames were sent."""
        target = self._sender.sent + MOMENT
        eventually(lambda: self._sender.sent >= target, 20, f"{MOMENT} more frames sent")

    def finish(self) -> tuple[int, list[int]]:
        """Stop; returns how many were sent and the numbers of those that arrived, in order."""
        sent = self._sender.stop()
        return sent, [number_of(frame) for frame in frames(self._sink) if is_gre(frame)]

    def growth(self) -> tuple[int, Counter[str], list[int]]:
        """Forwarded packets, drops by reason, and packets seen by worker, since the beginning."""
        now = self.node.status()
        forwarded = _services(now) - _services(self._before)
        drops = Counter(now["drops"])
        drops.subtract(self._before["drops"])
        seen = [w["seen"] - b["seen"] for w, b in
                zip(now["workers"], self._before["workers"], strict=True)]  # fmt: skip
        return forwarded, +drops, seen


def _services(status: dict[str, list[dict[str, int]]]) -> int:
    return sum(service["packets"] for service in status["services"])


def in_order_by_flow(numbers: list[int]) -> bool:
    last: dict[int, int] = {}
    for number in numbers:
        if number <= last.get(number % FLOWS, -1):
            return False
        last[number % FLOWS] = number
    return True


def test_reload_under_traffic_loses_nothing(tmp_path: Path) -> None:
    other = CONFIG.replace('{ address = "fd00::13" }', '{ address = "fd00::13", weight = 7 }')
    with running(tmp_path) as (stage, node):
        with Traffic(stage, node) as traffic:
            for config in (other, CONFIG) * 5:
                assert node.reload(config).returncode == 0
            traffic.moment()
            sent, arrived = traffic.finish()
        forwarded, drops, seen = traffic.growth()
        assert node.status()["generation"] == 11
        assert sorted(arrived) == list(range(sent))
        assert (forwarded, drops) == (sent, {})
        assert all(n > sent / 4 for n in seen), "both workers carry load"


def test_bad_reload_leaves_forwarding_as_it_was(tmp_path: Path) -> None:
    with running(tmp_path) as (stage, node):
        before = node.status()
        with Traffic(stage, node) as traffic:
            done = node.reload(CONFIG.replace('pool = "six"', 'pool = "seven"'))
            traffic.moment()
            sent, arrived = traffic.finish()
        assert done.returncode == 1
        assert "seven" in done.stderr
        after = node.status()
        assert after["generation"] == before["generation"]
        assert [s["fingerprint"] for s in after["services"]] == [
            s["fingerprint"] for s in before["services"]
        ]
        assert sorted(arrived) == list(range(sent))


@pytest.mark.parametrize("ring", ["v3", pytest.param("v2", marks=pytest.mark.slow)])
def test_killed_worker_is_replaced_in_its_rings(tmp_path: Path, ring: str) -> None:
    kills = 3
    with running(tmp_path, flags=["--ring", ring]) as (stage, node):
        with Traffic(stage, node) as traffic:
            for kill in range(1, kills + 1):
                pid = node.status()["workers"][0]["pid"]
                os.kill(pid, signal.SIGKILL)
                node.until(lambda s, n=kill: worker_replaced(s, n), "the worker is replaced")
                traffic.moment()
            sent, arrived = traffic.finish()
        forwarded, drops, seen = traffic.growth()
        assert sent - len(arrived) <= kills * BURST
        assert len(arrived) == len(set(arrived)), "nothing is sent twice"
        assert in_order_by_flow(arrived), "nothing is sent late, no flow changes its worker"
        assert set(drops) <= {"worker_died"}
        assert forwarded + drops.total() == sent, "every packet is in one counter"
        assert sum(seen) == sent
        died = node.events("worker_died")
        assert len(died) == kills
        assert all("SIGKILL" in event["reason"] for event in died)


def worker_replaced(status: dict[str, list[dict[str, object]]], restarts: int) -> bool:
    worker = status["workers"][0]
    return worker["restarts"] == restarts and worker["state"] == "running"


def test_stopped_worker_is_noticed_by_its_heartbeat(tmp_path: Path) -> None:
    with running(tmp_path, flags=["--rx-retire-ms", "20"]) as (stage, node):
        with Traffic(stage, node, rate=5000) as traffic:
            os.kill(node.status()["workers"][1]["pid"], signal.SIGSTOP)
            eventually(lambda: bool(node.events("worker_hung")), 20, "the hung worker is noticed")
            node.until(lambda s: s["workers"][1]["restarts"] == 1
                       and s["workers"][1]["state"] == "running", "it is replaced")  # fmt: skip
            traffic.moment()
            sent, arrived = traffic.finish()
        forwarded, drops, _seen = traffic.growth()
        assert sent - len(arrived) <= BURST, (
            "what came meanwhile waited in the ring (512 blocks of 20 ms)"
        )
        assert len(arrived) == len(set(arrived))
        assert in_order_by_flow(arrived)
        assert forwarded + drops.total() == sent


def test_no_flow_changes_its_worker_when_one_dies(tmp_path: Path) -> None:
    with running(tmp_path) as (stage, node):
        share = []
        for _round in range(2):
            with Traffic(stage, node) as traffic:
                sent, _arrived = traffic.finish()
            _forwarded, _drops, seen = traffic.growth()
            share.append([n / sent for n in seen])
            restarts = node.status()["workers"][0]["restarts"] + 1
            os.kill(node.status()["workers"][0]["pid"], signal.SIGKILL)
            node.until(lambda s, n=restarts: worker_replaced(s, n), "the worker is replaced")
        assert share[1] == pytest.approx(share[0], abs=FLOWS / MOMENT)


@pytest.mark.slow
def test_repeated_deaths_give_the_share_to_the_other_worker(tmp_path: Path) -> None:
    with running(tmp_path) as (stage, node):
        for _death in range(6):
            status = node.until(lambda s: s["workers"][0]["state"] != "starting", "it runs")
            os.kill(status["workers"][0]["pid"], signal.SIGKILL)
            pid = status["workers"][0]["pid"]
            node.until(lambda s, p=pid: s["workers"][0]["pid"] != p, "its death is noticed")
        node.until(lambda s: s["workers"][0]["state"] == "abandoned", "the slot is given up")
        assert node.events("worker_abandoned")
        with Traffic(stage, node) as traffic:
            sent, arrived = traffic.finish()
        assert sorted(arrived) == list(range(sent))
        assert traffic.growth()[2] == [0, sent]


def test_output_link_down_and_up_under_traffic(tmp_path: Path) -> None:
    with running(tmp_path) as (stage, node):
        with Traffic(stage, node) as traffic:
            stage.node.run("ip", "link", "set", "n1", "down")
            node.until(lambda s: not usable(s, "six"), "its backends are unusable")
            traffic.moment()
            stage.node.run("ip", "link", "set", "n1", "up")
            stage.node.run("ip", "address", "replace", "fd00::1/64", "dev", "n1")
            node.until(lambda s: len(usable(s, "six")) == 3, "they are usable again")
            came_back = traffic._sender.sent
            traffic.moment()
            sent, arrived = traffic.finish()
        forwarded, drops, _seen = traffic.growth()
        assert forwarded + drops.total() == sent, "every packet is in one counter"
        assert set(drops) <= {"no_backend", "tx_link_down", "no_next_hop"}
        assert len(arrived) == len(set(arrived))
        assert in_order_by_flow(arrived), "nothing of before the link was lost is sent after"
        assert set(range(came_back + FLOWS, sent)) <= set(arrived), "all is well afterwards"
        reasons = [event["reason"] for event in node.events("backend_down")]
        assert reasons
        assert all(reasons)


def usable(status: dict[str, list[dict[str, object]]], pool: str) -> list[object]:
    found = next(p for p in status["pools"] if p["name"] == pool)
    return [b["name"] for b in found["backends"] if b["usable"]]  # type: ignore[union-attr, index]


def test_lost_carrier_does_not_block(tmp_path: Path) -> None:
    with running(tmp_path) as (stage, node):
        with Traffic(stage, node) as traffic:
            stage.farm.run("ip", "link", "set", "f0", "down")
            node.until(lambda s: not usable(s, "six"), "its backends are unusable")
            stage.farm.run("ip", "link", "set", "f0", "up")
            for n in (11, 12, 13):
                stage.farm.run("ip", "address", "replace", f"fd00::{n}/64", "dev", "f0", "nodad")
            node.until(lambda s: len(usable(s, "six")) == 3, "they are usable again")
            came_back = traffic._sender.sent
            traffic.moment()
            sent, arrived = traffic.finish()
        forwarded, drops, _seen = traffic.growth()
        assert forwarded + drops.total() == sent
        assert len(arrived) == len(set(arrived))
        assert in_order_by_flow(arrived)
        assert set(range(came_back + FLOWS, sent)) <= set(arrived)


def test_receiving_interface_down_and_up(tmp_path: Path) -> None:
    with running(tmp_path) as (stage, node):
        with Traffic(stage, node) as traffic:
            sent, arrived = traffic.finish()
        assert len(arrived) == sent
        before = traffic.growth()[2]
        stage.node.run("ip", "link", "set", "n0", "down")
        eventually(lambda: bool(node.events("interface_down")), 20, "it is noticed")
        stage.node.run("ip", "link", "set", "n0", "up")
        node.until(lambda s: s["interfaces"][0]["state"] == "up", "n0 is up again")
        eventually(lambda: len(node.events("interface_up")) == 2, 20, "it is taken up")
        with Traffic(stage, node) as traffic:
            again, arrived = traffic.finish()
        assert sorted(arrived) == list(range(again))
        after = traffic.growth()[2]
        shares = [n / sent for n in before], [n / again for n in after]
        assert shares[1] == pytest.approx(shares[0], abs=FLOWS / MOMENT), "no flow moved"


def test_receiving_interface_deleted_and_made_again(tmp_path: Path) -> None:
    with running(tmp_path) as (stage, node):
        stage.node.run("ip", "link", "delete", "n0")
        eventually(lambda: bool(node.events("interface_gone")), 20, "it is noticed")
        stage.lab.link(stage.client, "c0", ["198.51.100.2/24"],
                       stage.node, "n0", ["198.51.100.1/24"])  # fmt: skip
        eventually(lambda: len(node.events("interface_up")) == 2, 20, "it is taken up")
        eventually(lambda: len(node.events("guard_installed")) == 2, 20, "the guard is back")
        with Traffic(stage, node) as traffic:
            sent, arrived = traffic.finish()
        forwarded, drops, seen = traffic.growth()
        assert sorted(arrived) == list(range(sent))
        assert (forwarded, drops) == (sent, {})
        assert all(n > sent / 4 for n in seen)
