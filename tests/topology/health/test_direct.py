"""Checks of the backends' own addresses, with real nginx: what is found, and what becomes of it."""

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from tests.topology.health.direct_stage import NAMES, conditions, config, of, watched
from tests.topology.node.stage import VIP4, Node, Stage
from tests.topology.node.test_oracle import is_gre

pytestmark = pytest.mark.topology

LATE_S = 5.0  # of a verdict: ten times interval and fall, for a busy machine
FLOWS = 60


def packets(stage: Stage) -> list[bytes]:
    """The same flows, each time."""
    ethernet = Ether(src=stage.mac(stage.client, "c0"), dst=stage.mac(stage.node, "n0"))
    return [
        bytes(ethernet / IP(src="198.51.100.2", dst=VIP4) / UDP(sport=p, dport=9) / Raw(b"x" * 18))
        for p in range(20_000, 20_000 + FLOWS)
    ]


def spread(stage: Stage, node: Node) -> dict[int, str]:
    """Send a packet of each flow; returns the backend by the flow's source port."""
    sink, source = stage.tap(stage.farm, "f0"), stage.tap(stage.client, "c0")
    before = ended(node.status())
    for frame in packets(stage):
        source.send(frame)
    node.until(lambda s: ended(s) == before + FLOWS, "every packet is counted")
    by_address = {address: name for name, address in NAMES.items()}
    # Ethernet 14, outer IPv4 20, GRE 4, inner IPv4 20, then the source port.
    return {
        int.from_bytes(frame[58:60], "big"): by_address[".".join(map(str, frame[30:34]))]
        for frame in waiting(sink)
        if is_gre(frame)
    }


def ended(status: dict[str, Any]) -> int:
    """Packets to the VIP that were forwarded or dropped."""
    dropped: int = status["drops"]["no_backend"]
    return dropped + sum(service["packets"] for service in status["services"])


def new_flows(status: dict[str, Any]) -> int:
    """Of the service; its backends' are as many."""
    (service,), (pool,) = status["services"], status["pools"]
    assert service["new_flows"] == sum(backend["new_flows"] for backend in pool["backends"])
    found: int = service["new_flows"]
    return found


def waiting(sink: socket.socket) -> Iterator[bytes]:
    """Read what has come; probes never let it fall silent."""
    sink.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            yield sink.recv(65536)


def until(node: Node, wanted: dict[str, str], what: str) -> float:
    """Wait for these conditions; returns after how many seconds they were seen."""
    begun = time.monotonic()
    node.until(lambda s: conditions(s) == wanted, what)
    return time.monotonic() - begun


UP = dict.fromkeys("abc", "up")


def test_a_dead_nginx_is_taken_out_and_comes_back(tmp_path: Path) -> None:
    with watched(tmp_path, config()) as (stage, farm, node):
        assert conditions(node.status()) == UP, "ready only after the first verdicts"
        before = spread(stage, node)
        assert len(before) == FLOWS
        assert set(before.values()) == set("abc")
        assert new_flows(node.status()) == FLOWS
        farm.stop("b")
        assert until(node, UP | {"b": "down"}, "b is out") < LATE_S
        row = of(node.status(), "b")
        assert "connection refused" in row["health_reason"]
        assert (row["slots"], row["weight"], row["weight_in_force"]) == (0, 1, 0)
        assert row["probe"]["outcome"] == "refused"
        (event,) = node.events("backend_down")
        assert (event["pool"], event["backend"]) == ("web", "b")
        assert "http 10.0.0.12:8080: connection refused" in event["reason"]
        without = spread(stage, node)
        assert set(without.values()) == {"a", "c"}
        assert new_flows(node.status()) == FLOWS, "those that moved are not new"
        stayed = {port for port, name in before.items() if name != "b"}
        assert {port: without[port] for port in stayed} == {port: before[port] for port in stayed}
        farm.start("b")
        assert until(node, UP, "b is back") < LATE_S
        assert [e["backend"] for e in node.events("backend_up")] == ["b"]
        assert of(node.status(), "b")["slots"] > 0


@pytest.mark.slow
def test_a_dead_backend_at_the_start_gets_nothing(tmp_path: Path) -> None:
    with watched(tmp_path, config(), sick="a") as (stage, _farm, node):
        assert conditions(node.status()) == UP | {"a": "down"}
        assert set(spread(stage, node).values()) == {"b", "c"}


def test_one_that_hangs_delays_nobody_else(tmp_path: Path) -> None:
    with watched(tmp_path, config()) as (_stage, farm, node):
        farm.freeze("a")
        try:
            assert until(node, UP | {"a": "down"}, "a is out") < LATE_S
            assert "no answer within 200 ms" in of(node.status(), "a")["health_reason"]
            farm.stop("b")
            assert until(node, UP | {"a": "down", "b": "down"}, "b, too") < LATE_S
        finally:
            farm.thaw("a")
        until(node, UP | {"b": "down"}, "a is back")


@pytest.mark.slow
def test_all_down_fails_open_loudly(tmp_path: Path) -> None:
    with watched(tmp_path, config()) as (stage, farm, node):
        before = spread(stage, node)
        for name in NAMES:
            farm.stop(name)
        until(node, dict.fromkeys("abc", "failed_open"), "all in service again")
        (event,) = node.events("pool_failed_open")
        assert event["level"] == "error"
        assert set(spread(stage, node)) == set(before), "every flow still has a backend"
        farm.start("c")
        until(node, {"a": "down", "b": "down", "c": "up"}, "one is well")
        assert node.events("pool_recovered")
        assert set(spread(stage, node).values()) == {"c"}


@pytest.mark.slow
def test_all_down_withdraws(tmp_path: Path) -> None:
    with watched(tmp_path, config('all_down = "withdraw"'), sick="abc") as (stage, farm, node):
        assert conditions(node.status()) == dict.fromkeys("abc", "down")
        assert node.events("pool_down")
        assert spread(stage, node) == {}
        farm.start("a")
        until(node, UP | {"b": "down", "c": "down"}, "one is well")
        assert set(spread(stage, node).values()) == {"a"}


@pytest.mark.slow
def test_below_min_healthy_the_last_to_fail_is_kept(tmp_path: Path) -> None:
    with watched(tmp_path, config("min_healthy = 2")) as (_stage, farm, node):
        farm.stop("a")
        until(node, UP | {"a": "down"}, "a is out")
        farm.stop("b")
        until(node, UP | {"a": "down", "b": "failed_open"}, "b fails, and is kept")
        assert [e["backend"] for e in node.events("backend_failed_open")] == ["b"]


@pytest.mark.slow
def test_flapping_is_held_down(tmp_path: Path) -> None:
    text = config(health="hold_down_s = 3").replace("hold_down_s = 0\n", "")
    with watched(tmp_path, text) as (_stage, farm, node):
        farm.stop("a")
        until(node, UP | {"a": "down"}, "a is out")
        begun = time.monotonic()
        farm.start("a")
        node.until(lambda s: "held down" in of(s, "a")["health_reason"], "a is held")
        farm.stop("a")
        node.until(lambda s: "refused" in of(s, "a")["health_reason"], "a fails again")
        again = time.monotonic()
        farm.start("a")
        until(node, UP, "a is back")
        assert time.monotonic() - again > 2.0
        assert time.monotonic() - begun > 3.0
        assert len(node.events("backend_up")) == 1, "one change for all of it"


@pytest.mark.slow
def test_a_slow_start_goes_by_steps(tmp_path: Path) -> None:
    with watched(tmp_path, config("slow_start_s = 4")) as (_stage, farm, node):
        assert conditions(node.status()) == UP, "not at the start of lbfwd"
        farm.stop("a")
        until(node, UP | {"a": "down"}, "a is out")
        farm.start("a")
        seen: list[float] = []

        def rises(status: dict[str, object]) -> bool:
            seen.append(of(status, "a")["weight_in_force"])
            return of(status, "a")["condition"] == "up"

        node.until(rises, "a has its weight")
        parts = sorted(set(seen) - {0.0})
        assert parts[0] <= 0.4
        assert parts[-1] == 1.0
        assert len(parts) >= 3
        assert seen == sorted(seen)


@pytest.mark.slow
def test_a_reload_asks_first(tmp_path: Path) -> None:
    with watched(tmp_path, config(), sick="c") as (_stage, farm, node):
        sick = config().replace('path = "/health"', 'path = "/sick"')
        assert node.reload(sick).returncode == 0
        # Not "checking": the reload was not done before the first answers were there.
        assert conditions(node.status()) == {"a": "failed_open", "b": "failed_open",
                                             "c": "failed_open"}  # fmt: skip
        assert "status 503" in of(node.status(), "a")["health_reason"]
        assert node.reload(config()).returncode == 0
        assert conditions(node.status()) == UP | {"c": "down"}
        refused = node.reload(config().replace("fall = 2", "fall = 0"))
        assert refused.returncode == 1
        assert 'pool "web".health.fall = 0: a whole number' in refused.stderr
        farm.start("c")
        until(node, UP, "what is in force goes on being watched")


@pytest.mark.slow
def test_a_backend_without_next_hop_is_down_with_that_reason(tmp_path: Path) -> None:
    with watched(tmp_path, config()) as (stage, _farm, node):
        stage.farm.run("ip", "address", "delete", "10.0.0.12/24", "dev", "f0")
        stage.node.run("ip", "neigh", "flush", "dev", "n1")
        until(node, UP | {"b": "down"}, "b is out")
        node.until(lambda s: "next hop 10.0.0.12" in of(s, "b")["health_reason"], "its reason")
        stage.farm.run("ip", "address", "add", "10.0.0.12/24", "dev", "f0")
        until(node, UP, "b is back")
