"""Routes of VIPs in a real kernel, read by iproute2, and imported by BIRD and FRR.

client c0 ──── n0 node n1 ──── f0 farm: tests/topology/node/stage.py
"""

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.failover.daemons import Bird, Frr
from lbfwd.demo.lab import Host, Lab, eventually
from tests.topology.node.stage import CONFIG, START_S, VIP4, VIP6, Node, Stage, running

pytestmark = pytest.mark.topology
ANNOUNCING = CONFIG.replace("[[pool]]", "[announce]\ntable = 100\ndrain_s = 0\n[[pool]]", 1)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[tuple[Stage, Node]]:
    with running(tmp_path, ANNOUNCING) as (stage, node):
        announced(stage.node, {VIP4, VIP6})
        yield stage, node


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A directory that FRR's user can reach; pytest's are private."""
    with tempfile.TemporaryDirectory(prefix="lbfwd-frr-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def routes(host: Host, table: int = 100, protocol: str = "247") -> set[str]:
    show = ("route", "show", "table", str(table), "proto", protocol)
    text = host.run("ip", *show, check=False) + host.run("ip", "-6", *show, check=False)
    return {line.split()[0] for line in text.splitlines()}


def changes(monitor: Path) -> list[str]:
    return [line for line in monitor.read_text().splitlines() if "table 100" in line]


def announced(host: Host, vips: set[str]) -> None:
    eventually(lambda: routes(host) == vips, START_S, f"routes to {vips}, only")


def test_routes_are_kept_and_those_of_others_left_alone(scene: tuple[Stage, Node]) -> None:
    stage, node = scene
    host = stage.node
    assert not routes(host, 254)
    foreign = ("192.0.2.77", "dev", "lo", "table", "100", "proto", "static")
    host.run("ip", "route", "add", *foreign)
    host.run("ip", "route", "flush", "table", "100", "proto", "247")
    announced(host, {VIP4, VIP6})
    assert node.events("vip_route_restored")[0]["vip"] == VIP4
    never = ANNOUNCING.replace(f'vip = "{VIP6}"', f'vip = "{VIP6}"\nannounce = "never"')
    assert node.reload(never).returncode == 0
    assert routes(host) == {VIP4}
    assert [vip["reason"] for vip in node.status()["vips"]] == ["", 'announce = "never"']
    assert node.stop() == 0
    assert not routes(host)
    assert routes(host, protocol="static") == {"192.0.2.77"}


@pytest.mark.slow
def test_routes_outlive_the_supervisor_and_not_the_workers(
    scene: tuple[Stage, Node], tmp_path: Path
) -> None:
    stage, node = scene
    node.process.kill()
    node.process.wait()
    withdraw = node.command("withdraw")
    assert "workers still forward" in stage.node.run(*withdraw)
    assert routes(stage.node) == {VIP4, VIP6}
    with (tmp_path / "monitor").open("w") as seen:
        monitor = stage.node.start("ip", "monitor", "route", stdout=seen)
        successor = Node(stage.node, tmp_path, ANNOUNCING).ready()
        eventually(lambda: len(node.events("vip_announced")) == 4, START_S, "taken over")
        stage.node.run("ip", "route", "add", "192.0.2.78", "dev", "lo", "table", "100")
        eventually(lambda: changes(tmp_path / "monitor"), START_S, "the monitor sees changes")
        monitor.terminate()
        monitor.wait()
    (changed,) = changes(tmp_path / "monitor")
    assert changed.startswith("192.0.2.78 "), "a gap"
    pids = [worker["pid"] for worker in successor.status()["workers"]]
    successor.process.kill()
    successor.process.wait()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    eventually(
        lambda: f"withdrawn: {VIP4}" in stage.node.run(*withdraw), START_S, "nobody forwards"
    )
    assert not routes(stage.node)


@pytest.mark.slow
def test_a_vip_that_cannot_be_served_is_withdrawn_and_held_down(
    scene: tuple[Stage, Node],
) -> None:
    stage, node = scene
    bird = Bird(stage.node, "bird.conf", node.runtime, ())

    def imported() -> set[str]:
        known = "".join(bird.ask("show", "route", "table", f"vips{n}") for n in (4, 6))
        return {vip for vip in (VIP4, VIP6) if f"{vip}/" in known}

    eventually(lambda: imported() == {VIP4, VIP6}, START_S, "BIRD has imported them")
    stage.farm.run("ip", "link", "set", "f0", "down")
    announced(stage.node, set())
    eventually(lambda: not imported(), START_S, "BIRD has heard")
    stage.farm.run("ip", "link", "set", "f0", "up")
    node.until(lambda s: any("5 s" in vip["reason"] for vip in s["vips"]), "held down")
    announced(stage.node, {VIP4, VIP6})


@pytest.mark.slow
def test_a_successor_that_finds_no_workers_begins_anew(tmp_path: Path) -> None:
    with Lab() as lab:
        stage = Stage(lab)
        with stage.sockets:
            stale = ("192.0.2.66", "dev", "lo", "table", "100", "proto", "247")
            stage.node.run("ip", "route", "add", *stale)
            node = Node(stage.node, tmp_path, ANNOUNCING).ready()
            assert node.events("vip_withdrawn")[0]["vip"] == "192.0.2.66"
            announced(stage.node, {VIP4, VIP6})


@pytest.mark.slow
@pytest.mark.usefixtures("frr")
def test_frr_announces_ipv4(scene: tuple[Stage, Node], reachable: Path) -> None:
    """FRR copies the routes into the main table, where they must do no harm: deploy/frr.conf."""
    stage, node = scene
    foreign = ("192.0.2.77", "dev", "lo", "table", "100", "proto", "static")
    stage.node.run("ip", "route", "add", *foreign)
    frr = Frr(stage.node, "frr.conf", reachable)
    eventually(
        lambda: VIP4 in frr.ask("show bgp ipv4 unicast"), START_S, "FRR has imported the route"
    )
    assert "192.0.2.77" in frr.ask("show bgp ipv4 unicast"), "as docs/announce.md warns"
    way = stage.node.run("ip", "route", "get", VIP4)
    assert "dev lo" in way
    assert node.stop() == 0
    eventually(
        lambda: VIP4 not in frr.ask("show bgp ipv4 unicast"), START_S, "FRR has withdrawn it"
    )
