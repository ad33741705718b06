"""Large datagrams through a router that gives first and later fragments to different nodes."""

import os
import signal
from pathlib import Path

import pytest

from bench.failover.text import VIPS
from tests.topology.fleet.fragments_site import CLIENTS, fragments_site, total

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
        assert site.nodes["lb1"].events("peer_down")[0]["peer"] == "lb2"

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
