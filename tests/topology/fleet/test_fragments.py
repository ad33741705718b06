"""Large datagrams through a router that gives first and later fragments to different nodes."""

import os
import signal
from pathlib import Path

import pytest

from bench.failover.text import ECHO, VIPS
from tests.topology.fleet.fragments_site import (
    BYTES,
    CLIENTS,
    WAIT_S,
    EcmpSite,
    fragments_site,
    missing,
    total,
)

pytestmark = pytest.mark.topology
ROUNDS = 5
DATAGRAMS = ROUNDS * len(CLIENTS)


def test_datagrams_arrive_whole(tmp_path: Path) -> None:
    """With "peer" none is lost; after a change to "local" all are, and are counted."""
    with fragments_site(tmp_path) as site:
        site.agree(["lb1", "lb2"])
        for vip in VIPS:
            assert site.exchange(vip, ROUNDS) == 0
        drops = site.drops()
        assert {*drops["lb1"], *drops["lb2"]} == {"fragment_to_peer"}
        assert drops["lb1"]["fragment_to_peer"] > 0
        assert drops["lb2"]["fragment_to_peer"] > 0
        for name, node in site.nodes.items():
            assert node.reload(site.config(name, "local")).returncode == 0
            assert not node.status()["peers"]
        assert site.exchange(VIPS[0], ROUNDS, wait_s=0.6) == DATAGRAMS
        site.nodes["lb2"].until(
            lambda s: s["drops"]["fragment_unmatched"] == 2 * DATAGRAMS, "counted"
        )
        assert total(site.drops(), "fragment_to_peer") == total(drops, "fragment_to_peer")


@pytest.mark.slow
def test_nodes_that_come_and_go(tmp_path: Path) -> None:
    with fragments_site(tmp_path, 3) as site:
        site.agree(["lb1", "lb2", "lb3"])
        assert site.exchange(VIPS[0], ROUNDS) == 0
        assert total(site.drops(), "fragment_to_peer") > 0

        # A node that is told to stop says so, and is given none at once.
        assert site.nodes["lb2"].stop() == 0
        site.agree(["lb1", "lb3"], on=["lb1", "lb3"])
        assert site.exchange(VIPS[0], ROUNDS) == 0
        downs = [site.nodes[name].events("peer_down")[0] for name in ("lb1", "lb3")]
        assert [(down["peer"], down["reason"]) for down in downs] == [
            ("lb2", "not ready: lbfwd stops")
        ] * 2

        # One that is there again is given some again.
        site.nodes["lb2"] = site.start("lb2", "peer").ready()
        site.agree(["lb1", "lb2", "lb3"])
        assert site.exchange(VIPS[0], ROUNDS) == 0

        # One that dies with all of its workers.
        victim = site.nodes["lb2"]
        pids = [victim.process.pid, *(w["pid"] for w in victim.status()["workers"])]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        site.agree(["lb1", "lb3"], on=["lb1", "lb3"])
        assert site.exchange(VIPS[0], ROUNDS) == 0

        # One that is configured otherwise goes its own way.
        other = site.config("lb3", "peer").replace('address = "10.9.0.1"', 'address = "10.9.0.7"')
        assert site.nodes["lb3"].reload(other).returncode == 0
        site.agree(["lb1"], on=["lb1"])
        site.agree(["lb3"], on=["lb3"])
        reasons = [p["reason"] for p in site.nodes["lb1"].status()["peers"] if p["name"] == "lb3"]
        assert reasons == ["has another configuration (lbfwd status --fleet)"]


def mixed(site: EcmpSite, vip: str, number: int) -> set[str]:
    """One flow with whole packets and large datagrams by turns; returns which ways they took."""
    site.ways()
    before = site.received()
    sent = {bytes([number, turn]) * half for turn in range(ROUNDS) for half in (50, BYTES // 2)}
    with site.socket(vip, number) as sock:
        sock.settimeout(WAIT_S)
        for data in sent:
            sock.sendto(data, (vip, ECHO))
        assert missing(sock, set(sent)) == 0
    came = {farm: count - before[farm] for farm, count in site.received().items()}
    assert sorted(came.values()) == [0, len(sent)], "all of a flow at one backend"
    return site.ways()


@pytest.mark.slow
def test_a_router_that_takes_no_ports_of_fragments(tmp_path: Path) -> None:
    """Linux: a datagram's fragments go one way, whole packets of the flow perhaps another."""
    with fragments_site(tmp_path, kind=EcmpSite) as site:
        site.agree(["lb1", "lb2"])
        ways = [mixed(site, vip, number) for vip in VIPS for number in CLIENTS]
        assert all(len(way) == 2 for way in ways)
        assert any(len({name[-1] for name in way}) == 2 for way in ways)
        drops = site.drops()
        assert total(drops, "fragment_to_peer") > 0
        for name, node in site.nodes.items():
            assert node.reload(site.config(name, "local")).returncode == 0
        assert not site.nodes["lb1"].status()["peers"]
        ways = [mixed(site, vip, number) for vip in VIPS for number in CLIENTS]
        assert all(len(way) == 2 for way in ways)
        assert {*site.drops()["lb1"], *site.drops()["lb2"]} == {"fragment_to_peer"}
        assert total(site.drops(), "fragment_to_peer") == total(drops, "fragment_to_peer")
