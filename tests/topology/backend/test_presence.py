"""A backend owns the VIPs without anybody on its link noticing.

peer ──── backend     no router between them, and eth0 of the backend has no address
"""

import pytest

from lbfwd.demo.lab import Lab
from tests.topology.backend.site import VIP4, VIP6

pytestmark = pytest.mark.topology

OPTIONS = ("--vip", VIP4, "--vip", VIP6, "--node", "10.9.0.1", "--node", "fd09::1")


@pytest.fixture
def pair(site):
    with Lab() as lab:
        peer, backend = lab.host("peer"), lab.host("backend")
        lab.link(peer, "eth0", ("10.9.0.1/32", "fd09::1/128"), backend, "eth0", ())
        for family, node, vip in (("-4", "10.9.0.1", VIP4), ("-6", "fd09::1", VIP6)):
            backend.run("ip", family, "route", "add", node, "dev", "eth0")
            backend.run("ip", family, "route", "add", "default", "dev", "eth0")
            peer.run("ip", family, "route", "add", vip, "dev", "eth0")
        yield peer, backend


def answers_arp(peer):
    peer.run("ip", "neigh", "flush", "dev", "eth0")
    peer.run("ping", "-c", "1", "-W", "2", VIP4, check=False)
    return "lladdr" in peer.run("ip", "neigh", "show", VIP4, "dev", "eth0")


def test_arp_for_a_vip_is_not_answered(pair, command):
    peer, backend = pair
    backend.run("ip", "address", "add", f"{VIP4}/32", "dev", "lo")
    assert answers_arp(peer), "without lbfwd Linux answers for every address of its own"
    command(*OPTIONS, host=backend).ready()
    assert not answers_arp(peer)


def test_the_backend_opens_no_connection_from_a_vip(pair, command):
    _peer, backend = pair
    command(*OPTIONS, host=backend).ready()
    backend.run("ip", "address", "add", "10.9.9.9/32", "dev", "lo")
    backend.run("ip", "address", "add", "fd09::9/128", "dev", "lo", "nodad")
    assert "src 10.9.9.9 " in backend.run("ip", "route", "get", "198.51.100.2")
    assert "src fd09::9 " in backend.run("ip", "route", "get", "2001:db8:c::2")
