"""Several nodes behind a real router: what clients notice when one stops, starts or dies.

The picture is in bench/failover/site.py. The oracle is the clients' own count.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bench.failover.daemons import Detection
from bench.failover.measure import Noticed, kill, revive, start, stop
from bench.failover.site import BFD, Clients, Router, Site, running
from bench.failover.text import VIPS

pytestmark = pytest.mark.topology
FEW, MANY = 100, 300
FLOWS, RATE = 32, 320


@contextmanager
def fleet(
    connections: int,
    nodes: int = 2,
    router: Router = "bird",
    detection: Detection = BFD,
) -> Iterator[tuple[Site, Clients]]:
    """A fleet with clients whose connections are all open."""
    with (
        running(nodes, router, detection) as site,
        Clients(site.client, connections, FLOWS, RATE) as clients,
    ):
        clients.wait()
        yield site, clients


def unharmed(noticed: Noticed, connections: int) -> None:
    assert (noticed.connections, noticed.broken, noticed.stalled) == (connections, 0, 0)
    assert noticed.datagrams > RATE
    assert noticed.lost == dict.fromkeys(VIPS, 0)


def survived(noticed: Noticed, connections: int, detection_s: float) -> None:
    """No connection breaks; datagrams are lost only until the router has noticed."""
    assert (noticed.connections, noticed.broken, noticed.stalled) == (connections, 0, 0)
    assert 0 < sum(noticed.lost.values()) < noticed.datagrams
    assert noticed.silent_ms < 1000 * (detection_s + 1.5)


def spread(site: Site) -> None:
    """Packets came to every node, and all nodes would do the same with them."""
    statuses = [node.status() for node in site.nodes]
    fingerprints = [{s["name"]: s["fingerprint"] for s in each["services"]} for each in statuses]
    assert all(each == fingerprints[0] and len(each) == 4 for each in fingerprints)
    for status in statuses:
        assert all(service["packets"] > 0 for service in status["services"])
        assert [vip["announced"] for vip in status["vips"]] == [True, True]


def test_a_node_that_stops_and_starts_is_not_noticed() -> None:
    with fleet(FEW) as (site, clients):
        node = site.nodes[1]
        spread(site)
        unharmed(stop(site, clients, node), FEW)
        assert node.lbfwd.returncode == 0
        assert node.events("traffic_moved")
        unharmed(start(site, clients, node), FEW)


@pytest.mark.slow
@pytest.mark.parametrize("router", ["bird", "frr"])
def test_three_nodes(router: Router, request: pytest.FixtureRequest) -> None:
    if router == "frr":
        request.getfixturevalue("frr")
    with fleet(MANY, nodes=3, router=router) as (site, clients):
        spread(site)
        for node in site.nodes:
            unharmed(stop(site, clients, node), MANY)
            unharmed(start(site, clients, node), MANY)
        survived(kill(site, clients, site.nodes[0]), MANY, 1.5)
        unharmed(revive(site, clients, site.nodes[0]), MANY)


@pytest.mark.slow
@pytest.mark.parametrize("router", ["bird", "frr"])
@pytest.mark.parametrize(
    ("detection", "longest_s"), [(BFD, 1.5), (Detection(bfd=False, hold_s=3), 3.0)], ids=str
)
def test_connections_survive_the_death_of_a_node(
    router: Router,
    detection: Detection,
    longest_s: float,
    request: pytest.FixtureRequest,
) -> None:
    if router == "frr":
        request.getfixturevalue("frr")
    with fleet(MANY, router=router, detection=detection) as (site, clients):
        node = site.nodes[1]
        unharmed(stop(site, clients, node), MANY)
        unharmed(start(site, clients, node), MANY)
        survived(kill(site, clients, node), MANY, longest_s)
        unharmed(revive(site, clients, node), MANY)
