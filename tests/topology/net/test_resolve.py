"""Routes and neighbours on the kernel.

    node e0 10.0.0.1/24 fd00::1/64 ═══ p0 10.0.0.2, fd00::2, fe80::2 ┐
                                                                     peer
    node e1 10.0.1.1/24 fd01::1/64 ═══ p1 10.0.1.2, fd01::2, fe80::2 ┘

Every call of Net runs in one plain thread that belongs to the node's namespace.
"""

import asyncio
import json
from ipaddress import ip_address

import pytest
import uvloop

from tests.topology.net.resolver import Resolver, bytes_of, ip, route, shape
from tests.topology.net.wire import mac, until

pytestmark = pytest.mark.topology

PEER = "fe80::2"


def test_a_backend_on_the_link(two_links, resolver):
    node, peer = two_links
    found = resolver.wait("10.0.0.2")
    assert shape(found) == [("e0", "10.0.0.2", "10.0.0.1", 1500)]
    hop = found.hops[0]
    assert found.reason == ""
    assert hop.mac == bytes_of(mac(peer, "p0"))
    assert hop.link.mac == bytes_of(mac(node, "e0"))
    assert hop.link.up
    assert hop.link.carrier
    assert hop.link.ethernet
    assert shape(resolver.wait("fd00::2")) == [("e0", "fd00::2", "fd00::1", 1500)]


def test_links_are_what_iproute2_says(two_links, resolver):
    ip(two_links[0], "link", "set", "e1", "down", "mtu", "1400")
    links = resolver.call(resolver.net.links)
    listed = json.loads(ip(two_links[0], "-j", "link", "show"))
    assert {name: (link.ifindex, link.mtu) for name, link in links.items()} == {
        entry["ifname"]: (entry["ifindex"], entry["mtu"]) for entry in listed
    }
    flags = {name: (link.up, link.carrier, link.ethernet) for name, link in links.items()}
    assert flags["e0"] == (True, True, True)
    assert flags["e1"] == (False, False, True)
    assert flags["lo"] == (True, True, False)


def test_a_gateway_and_the_routes_mtu(two_links, resolver):
    route(two_links[0], "10.9.0.0/24", "via", "10.0.1.2", "mtu", "1400")
    route(two_links[0], "fd99::/64", "via", "fd01::2", "mtu", "9000")
    assert shape(resolver.wait("10.9.0.1")) == [("e1", "10.0.1.2", "10.0.1.1", 1400)]
    assert shape(resolver.wait("fd99::1")) == [("e1", "fd01::2", "fd01::1", 1500)]


@pytest.mark.parametrize("compat", [1, 0])
def test_next_hop_objects(two_links, resolver, compat):
    node = two_links[0]
    node.sysctl(ipv4__nexthop_compat_mode=compat)
    ip(node, "nexthop", "add", "id", "1", "via", "10.0.0.2", "dev", "e0")
    ip(node, "nexthop", "add", "id", "2", "via", "10.0.1.2", "dev", "e1")
    ip(node, "nexthop", "add", "id", "3", "group", "1/2")
    route(node, "10.9.0.0/24", "nhid", "3")
    both = {
        ("e0", "10.0.0.2", "10.0.0.1", 1500),
        ("e1", "10.0.1.2", "10.0.1.1", 1500),
    }
    found = set(shape(resolver.wait("10.9.0.1", hops=2 if compat else 1)))
    assert found == both if compat else found < both


def test_multipath(two_links, resolver):
    node, peer = two_links
    paths = ("nexthop", "via", "10.0.0.2", "dev", "e0", "nexthop", "via", "10.0.1.2", "dev", "e1")
    route(node, "10.9.0.0/24", *paths)
    route(node, "fd99::/64", *[part.replace("10.0.", "fd0").replace(".2", "::2") for part in paths])
    found = resolver.wait("10.9.0.1", hops=2)
    assert shape(found) == [
        ("e0", "10.0.0.2", "10.0.0.1", 1500),
        ("e1", "10.0.1.2", "10.0.1.1", 1500),
    ]
    assert [hop.mac for hop in found.hops] == [bytes_of(mac(peer, f"p{i}")) for i in (0, 1)]
    assert shape(resolver.wait("fd99::1", hops=2)) == [
        ("e0", "fd00::2", "fd00::1", 1500),
        ("e1", "fd01::2", "fd01::1", 1500),
    ]


def test_of_a_multipath_route_the_usable_hops_are_used(two_links, resolver):
    node, peer = two_links
    silent = ["nexthop", "via", "10.0.1.77", "dev", "e1"]
    route(node, "10.9.0.0/24", "nexthop", "via", "10.0.0.2", "dev", "e0", *silent)
    found = resolver.wait("10.9.0.1")
    assert shape(found) == [("e0", "10.0.0.2", "10.0.0.1", 1500)]
    assert found.reason.startswith("next hop 10.0.1.77 on e1: neighbour ")
    until(
        lambda: resolver.one("10.9.0.1").reason == "next hop 10.0.1.77 on e1: neighbour FAILED",
        "the silent hop has failed",
    )
    ip(peer, "address", "add", "10.0.1.77/24", "dev", "p1")
    # Nobody sends anything: the kernel itself goes on trying.
    assert resolver.wait("10.9.0.1", hops=2).reason == ""


def test_ipv4_through_ipv6_next_hops_on_unnumbered_links(two_links, resolver):
    node = two_links[0]
    ip(node, "address", "add", "10.255.0.1/32", "dev", "lo")
    for i in (0, 1):
        ip(node, "address", "del", f"10.0.{i}.1/24", "dev", f"e{i}")
    hops = f"nexthop via inet6 {PEER} dev e0 nexthop via inet6 {PEER} dev e1".split()
    route(node, "10.8.0.0/24", *hops)
    route(node, "10.9.0.0/24", "via", "inet6", PEER, "dev", "e1", "src", "10.255.0.1")
    assert shape(resolver.wait("10.9.0.1")) == [("e1", PEER, "10.255.0.1", 1500)]
    assert shape(resolver.wait("10.8.0.1", hops=2, sources=["10.255.0.1"])) == [
        ("e0", PEER, "10.255.0.1", 1500),
        ("e1", PEER, "10.255.0.1", 1500),
    ]
    nothing = resolver.one("10.8.0.1")
    assert nothing.hops == ()
    assert nothing.reason == (
        "e0 has no global IPv4 address: set [node] source; "
        "e1 has no global IPv4 address: set [node] source"
    )


def test_the_configured_source_of_the_backends_family_is_used(two_links, resolver):
    sources = ["203.0.113.5", "fd00::1"]
    assert shape(resolver.wait("10.0.0.2", sources=sources))[0][2] == "203.0.113.5"
    assert shape(resolver.wait("fd01::2", sources=sources))[0][2] == "fd00::1"
    assert shape(resolver.wait("fd01::2", sources=sources[:1]))[0][2] == "fd01::1"


def test_addresses_that_will_not_do_as_a_source_are_passed_over(two_links, resolver):
    node = two_links[0]
    ip(node, "address", "add", "fd01::f/64", "dev", "e1", "preferred_lft", "0")
    ip(node, "address", "del", "fd01::1/64", "dev", "e1")
    resolver.resolve("fd01::2")
    until(lambda: "no global IPv6 address" in resolver.one("fd01::2").reason, "no source")
    ip(node, "address", "add", "fd01::a/64", "dev", "e1")
    assert shape(resolver.wait("fd01::2"))[0][2] == "fd01::a"


def test_policy_rules_decide(two_links, resolver):
    node = two_links[0]
    ip(node, "address", "add", "10.255.0.1/32", "dev", "lo")
    route(node, "10.9.0.0/24", "via", "10.0.0.2")
    route(node, "10.9.0.0/24", "via", "10.0.1.2", "table", "100")
    ip(node, "rule", "add", "from", "10.255.0.1", "lookup", "100")
    assert shape(resolver.wait("10.9.0.1"))[0][:2] == ("e0", "10.0.0.2")
    assert shape(resolver.wait("10.9.0.1", sources=["10.255.0.1"]))[0][:2] == ("e1", "10.0.1.2")
    ip(node, "rule", "add", "to", "10.9.0.1", "lookup", "100")
    assert shape(resolver.wait("10.9.0.1"))[0][:2] == ("e1", "10.0.1.2")


@pytest.mark.parametrize(
    ("backend", "kind", "reason"),
    [
        ("10.9.0.1", None, "no route"),
        ("fd99::1", None, "no route"),
        ("10.9.0.1", "blackhole", "route is blackhole"),
        ("fd99::1", "blackhole", "route is blackhole"),
        ("10.9.0.1", "unreachable", "route is unreachable"),
        ("fd99::1", "unreachable", "route is unreachable"),
        ("10.9.0.1", "prohibit", "route is prohibit"),
        ("fd99::1", "prohibit", "route is prohibit"),
        ("10.0.0.1", None, "route is local: this machine's own address"),
        ("fd00::1", None, "route is local: this machine's own address"),
        ("10.0.0.255", None, "route is broadcast"),
    ],
)
def test_why_there_is_no_way(two_links, resolver, backend, kind, reason):
    if kind:
        route(two_links[0], kind, backend)
    for sources in ((), ("203.0.113.5", "fd00::1"), ("10.0.0.1",)):
        found = resolver.one(backend, sources)
        assert (found.hops, found.reason) == ((), reason)


def test_a_link_that_cannot_be_used_is_named(two_links, resolver):
    node, peer = two_links
    for network, device in (("10.7.0.0/24", "lo"), ("10.8.0.0/24", "e0"), ("10.9.0.0/24", "e1")):
        route(node, network, "dev", device, "table", "100")
    ip(node, "rule", "add", "lookup", "100", "pref", "1")
    ip(peer, "link", "set", "p0", "down")
    until(lambda: "NO-CARRIER" in ip(node, "link", "show", "e0"), "carrier lost")
    reasons = [found.reason for found in resolver.resolve("10.7.0.1", "10.8.0.1")]
    assert reasons[0] == "next hop 10.7.0.1: lo is not Ethernet"
    assert reasons[1] in ("next hop 10.8.0.1: e0 has no carrier", "no route")
    ip(peer, "link", "set", "p0", "up")
    until(lambda: "NO-CARRIER" not in ip(node, "link", "show", "e0"), "carrier back")
    assert shape(resolver.wait("10.0.0.2"))[0][0] == "e0"


def test_a_thousand_backends(two_links, resolver):
    route(two_links[0], "10.9.0.0/16", "via", "10.0.0.2")
    resolver.wait("10.9.0.1")
    backends = [str(ip_address("10.9.0.0") + i) for i in range(1, 1001)]
    found = resolver.resolve(*backends)
    assert {len(way.hops) for way in found} == {1}


@pytest.mark.parametrize("runner", [uvloop.run, asyncio.run])
def test_beside_an_event_loop_of_any_kind(two_links, runner):
    resolver = Resolver(two_links[0])

    async def supervise():
        loop = asyncio.get_running_loop()
        address = ip_address("10.0.0.2")
        while True:
            work = loop.run_in_executor(resolver._pool, resolver.net.resolve, [address], [])
            if (await work)[address].hops:
                return

    async def within_the_deadline():
        async with asyncio.timeout(10):
            await supervise()

    try:
        runner(within_the_deadline())
    finally:
        resolver.close()


def test_under_uvloops_policy(two_links):
    before = asyncio.get_event_loop_policy()
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    try:
        resolver = Resolver(two_links[0])
        try:
            resolver.wait("10.0.0.2")
        finally:
            resolver.close()
    finally:
        asyncio.set_event_loop_policy(before)
