"""Nodes that announce by FRR, both families, to a router with BIRD that spreads over them.

The picture is in bench/failover/site.py. FRR 8.4 imports no IPv6 table: BIRD copies it.
"""

from pathlib import Path

import pytest

from bench.failover.daemons import Bird, Frr
from bench.failover.measure import kill, revive, start, stop
from bench.failover.node import START_S, FleetNode
from bench.failover.site import Clients, Site, running
from bench.failover.text import VIPS
from lbfwd.demo.lab import eventually
from tests.topology.fleet.test_fleet import FEW, FLOWS, RATE, spread, survived, unharmed

FOREIGN = "2001:db8:77::1/128"
pytestmark = [pytest.mark.topology, pytest.mark.slow, pytest.mark.usefixtures("frr")]


class FrrNode(FleetNode):
    """A node with deploy/frr.conf and deploy/bird-for-frr.conf."""

    def start_routing(self) -> None:
        life = Path(self.directory, f"routing{self._lives}")
        life.mkdir()
        life.chmod(0o755)
        self.frr = Frr(self.host, "frr.conf", life, [("203.0.113.10", self.addresses[0])])
        self.bird = Bird(self.host, "bird-for-frr.conf", life, ())


class FrrSite(Site):
    NODE = FrrNode


def only_vips_are_announced(node: FleetNode) -> None:
    """Of what FRR finds in the main table."""
    assert isinstance(node, FrrNode)
    node.host.run("ip", "-6", "route", "add", FOREIGN, "dev", "lo")
    show = "show bgp ipv6 unicast"
    eventually(lambda: FOREIGN in node.frr.ask(show), START_S, "FRR has found it")
    told = node.frr.ask(f"{show} neighbors 2001:db8:1::1 advertised-routes")
    assert VIPS[1] in told
    assert FOREIGN not in told


def test_nodes_with_frr_announce_both_families() -> None:
    with (
        running(router="bird", kind=FrrSite) as site,
        Clients(site.client, FEW, FLOWS, RATE) as clients,
    ):
        clients.wait()
        spread(site)
        only_vips_are_announced(site.nodes[0])
        node = site.nodes[1]
        unharmed(stop(site, clients, node), FEW)
        unharmed(start(site, clients, node), FEW)
        survived(kill(site, clients, node), FEW, 1.5)
        unharmed(revive(site, clients, node), FEW)
