"""Who gets in: GRE from the nodes, to the VIPs, and nothing else."""

import pytest
from scapy.layers.inet import IP, UDP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, fragment6
from scapy.layers.l2 import GRE

from tests.topology.backend.site import (
    BACKEND4,
    BACKEND6,
    CLIENT4,
    CLIENT6,
    NODE4,
    NODE6,
    VIP4,
    VIP6,
    counters,
    until,
)

pytestmark = pytest.mark.topology

STRANGER4, STRANGER6 = "10.0.2.2", "fd00:2::2"
FROM_NODE = {4: IP(src=NODE4, dst=BACKEND4), 6: IPv6(src=NODE6, dst=BACKEND6)}
FROM_STRANGER = {4: IP(src=STRANGER4, dst=BACKEND4), 6: IPv6(src=STRANGER6, dst=BACKEND6)}
INNER = {
    4: IP(src=CLIENT4, dst=VIP4) / UDP(sport=7, dport=7) / (b"hello" * 30),
    6: IPv6(src=CLIENT6, dst=VIP6) / UDP(sport=7, dport=7) / (b"hello" * 30),
}


@pytest.fixture
def send(script):
    """Send packets from a host."""
    started = {}

    def send(host, *packets):
        if host not in started:
            started[host] = script(host, "injector.py")
        for packet in packets:
            started[host].stdin.write(bytes(packet).hex() + "\n")
        started[host].stdin.flush()

    return send


@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("inner", [4, 6])
def test_a_stranger_is_refused_and_counted_and_unwrapped_by_nobody(
    site, command, send, *, outer, inner
):
    running = command().ready()
    send(site.stranger, FROM_STRANGER[outer] / GRE() / INNER[inner])
    until(lambda: counters(site.backend)["GRE from a stranger"] == 1, "the refusal is counted")
    send(site.node, FROM_NODE[outer] / GRE() / INNER[inner])
    seen = until(lambda: (c := counters(site.backend))["to a VIP"] and c, "the node gets in")
    assert seen["GRE from a stranger"] == 1
    assert seen["GRE from a node"] == 1
    assert seen["to a VIP"] == 1
    running.end()
    if not site.gre:  # the raw sockets saw one packet: they are behind the input filter
        assert running.logged("backend_stopping")["packets"] == 1


SHAPES = {
    "IPv4 fragments": (4, lambda outer: fragment(outer / GRE() / INNER[4], 64)),
    "IPv6 fragments": (6, lambda o: fragment6(o / IPv6ExtHdrFragment() / GRE() / INNER[4], 128)),
    "IPv6 extension header": (6, lambda outer: [outer / IPv6ExtHdrDestOpt() / GRE() / INNER[4]]),
}


@pytest.mark.parametrize(("family", "shape"), SHAPES.values(), ids=SHAPES.keys())
def test_fragments_and_extension_headers_are_no_way_round(site, command, send, *, family, shape):
    command().ready()
    send(site.stranger, *shape(FROM_STRANGER[family]))
    until(lambda: counters(site.backend)["GRE from a stranger"], "the refusal is counted")
    send(site.node, *shape(FROM_NODE[family]))  # the same packets do arrive, from a node
    seen = until(lambda: (c := counters(site.backend))["to a VIP"] and c, "the node gets in")
    assert seen["to a VIP"] == 1


@pytest.mark.parametrize("target", [BACKEND4, STRANGER4, BACKEND6, STRANGER6])
def test_inside_the_tunnel_only_the_vips_can_be_reached(site, command, send, target):
    """Else a forged node could reach what the edge protects, or have it forwarded."""
    command().ready()
    inner = IPv6(src=CLIENT6, dst=target) if ":" in target else IP(src=CLIENT4, dst=target)
    send(site.node, FROM_NODE[4] / GRE() / inner / UDP(dport=7))
    until(lambda: counters(site.backend)["from the tunnel, not to a VIP"], "the drop is counted")
    assert counters(site.backend)["to a VIP"] == 0


@pytest.mark.usefixtures("user_space")
def test_what_cannot_be_unwrapped_is_told(site, command, send):
    running = command().ready()
    send(site.node, FROM_NODE[4] / GRE(key_present=1, key=7) / INNER[4])
    send(site.node, FROM_NODE[6] / GRE(proto=0x0800) / b"short")
    until(lambda: counters(site.backend)["GRE from a node"] == 2, "both arrived")
    running.end()
    end = running.logged("backend_stopping")
    assert (end["malformed"], end["refused"], end["no_room"]) == (1, 1, 0)
