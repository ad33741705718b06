"""The ingress guard on the kernel.

    client v0 ═══ v0 node v1 ═══ v0 server (owns the VIPs)
        192.0.2.0/24, 2001:db8:2::/64 ──► routed by the node towards the server

The node forwards (ip_forward on), as a router next to the load balancer would.
"""

import asyncio
import json
import os
import socket
from ipaddress import ip_address

import pytest
import uvloop
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import GRE, Dot1Q, Ether

from lbfwd.demo.lab import LabError
from lbfwd.net import guard
from lbfwd.net.filter import ADMIT_ALL
from tests.topology.net.wire import DEADLINE_S, inside, mac, received, sender, tap

pytestmark = pytest.mark.topology

VIP4, VIP6 = "192.0.2.10", "2001:db8:2::10"
OTHER4, OTHER6 = "192.0.2.99", "2001:db8:2::99"
VIPS = [ip_address(VIP4), ip_address(VIP6)]
PORT = 5353


@pytest.fixture
def hosts(lab):
    client, node, server = lab.host("client"), lab.host("node"), lab.host("server")
    lab.link(client, "v0", ["10.1.0.2/24", "fd01::2/64"], node, "v0", ["10.1.0.1/24", "fd01::1/64"])
    lab.link(node, "v1", ["10.2.0.1/24", "fd02::1/64"], server, "v0", ["10.2.0.2/24", "fd02::2/64"])
    node.sysctl(ipv4__ip_forward=1, ipv6__conf__all__forwarding=1)
    node.run("ip", "route", "add", "192.0.2.0/24", "via", "10.2.0.2")
    node.run("ip", "route", "add", "2001:db8:2::/64", "via", "fd02::2")
    for address in (VIP4, OTHER4, VIP6, OTHER6):
        server.run("ip", "address", "add", address, "dev", "lo")
    server.run("ip", "route", "add", "default", "via", "10.2.0.1")
    server.run("ip", "-6", "route", "add", "default", "via", "fd02::1")
    return client, node, server


@pytest.fixture
def listener(stack, hosts):
    with inside(hosts[2]):
        sock = stack.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
    sock.bind(("::", PORT))
    sock.settimeout(DEADLINE_S)
    return sock


@pytest.fixture
def wire(stack, hosts):
    client, node, _ = hosts
    with inside(client):
        out = stack.enter_context(sender("v0"))
    return Ether(src=mac(client, "v0"), dst=mac(node, "v0")), out


def datagram(below, destination, text, source="10.1.0.2"):
    ip = IPv6(src="fd01::2", dst=destination) if ":" in destination else IP(src=source)
    ip.dst = destination
    return below / ip / UDP(sport=4000, dport=PORT) / text.encode()


def arrived(listener):
    """Return the texts that reached the server before "end"."""
    texts = []
    while (text := listener.recv(2048).decode()) != "end":
        texts.append(text)
    return texts


def call(host, coroutine):
    with inside(host):
        return uvloop.run(coroutine)  # the supervisor's loop


def install(host, interfaces=("v0",), vips=VIPS):
    call(host, guard.install(interfaces, vips))


def missing(host, interfaces=("v0",), vips=VIPS):
    return call(host, guard.missing(interfaces, vips))


def both_families(ether):
    pairs = ((VIP4, "vip4"), (VIP6, "vip6"), (OTHER4, "other4"), (OTHER6, "other6"))
    return [datagram(ether, destination, text) for destination, text in pairs]


def test_the_stack_forwards_no_vip_packet_but_a_tap_sees_it(stack, hosts, wire, listener):
    node = hosts[1]
    ether, out = wire
    end = datagram(ether, OTHER4, "end")
    frames = [*both_families(ether), end]
    for frame in frames:
        out.send(bytes(frame))
    assert sorted(arrived(listener)) == ["other4", "other6", "vip4", "vip6"]

    install(node)
    with inside(node):
        everything = stack.enter_context(tap("v0", ADMIT_ALL))
    for frame in frames:
        out.send(bytes(frame))
    assert sorted(arrived(listener)) == ["other4", "other6"]
    seen = received(everything, last=bytes(end))
    assert [bytes(frame) for frame in frames[:2]] == [
        raw for raw in seen if raw in map(bytes, frames[:2])
    ]

    call(node, guard.remove())
    for frame in frames:
        out.send(bytes(frame))
    assert sorted(arrived(listener)) == ["other4", "other6", "vip4", "vip6"]


WITNESS = """
table netdev witness {
    chain behind {
        type filter hook ingress device "v0" priority 0;
        vlan id 100 vlan type ip ip daddr 192.0.2.10 counter comment "tag 100 vip4"
        vlan id 100 vlan type ip6 ip6 daddr 2001:db8:2::10 counter comment "tag 100 vip6"
        vlan id 0 vlan type ip ip daddr 192.0.2.10 counter comment "tag 0 vip4"
        vlan id 0 vlan type ip6 ip6 daddr 2001:db8:2::10 counter comment "tag 0 vip6"
        ether type ip ip daddr 192.0.2.10 counter comment "untagged vip4"
        ether type ip6 ip6 daddr 2001:db8:2::10 counter comment "untagged vip6"
        ip daddr 192.0.2.99 counter comment "other4"
    }
}
"""


def tagged_and_not(ether):
    for vlan, name in ((100, "tag 100"), (0, "tag 0"), (None, "untagged")):
        below = ether if vlan is None else ether / Dot1Q(vlan=vlan)
        yield datagram(below, VIP4, f"{name} vip4")
        yield datagram(below, VIP6, f"{name} vip6")


def test_tagged_frames_pass_the_parents_guard(hosts, wire, listener):
    """A chain behind the guard counts what the guard lets through."""
    node = hosts[1]
    ether, out = wire
    node.run("nft", "-f", "-", stdin=WITNESS)

    def survivors():
        for frame in [*tagged_and_not(ether), datagram(ether, OTHER4, "end")]:
            out.send(bytes(frame))
        arrived(listener)
        listing = json.loads(node.run("nft", "-j", "list", "table", "netdev", "witness"))
        rules = [item["rule"] for item in listing["nftables"] if "rule" in item]
        return {
            rule["comment"]: counter["counter"]["packets"]
            for rule in rules
            for counter in rule["expr"]
            if "counter" in counter
        }

    names = [f"{tag} vip{v}" for tag in ("tag 100", "tag 0", "untagged") for v in (4, 6)]
    assert survivors() == {**dict.fromkeys(names, 1), "other4": 1}
    install(node)
    guarded = {name: 2 if name.startswith("tag 100") else 1 for name in names}
    assert survivors() == {**guarded, "other4": 2}


def test_a_vlan_device_has_a_guard_of_its_own(hosts, wire, listener):
    node = hosts[1]
    ether, out = wire
    try:
        node.run("ip", "link", "add", "link", "v0", "name", "v0.100", "type", "vlan", "id", "100")
    except LabError:
        pytest.skip("needs VLAN devices: kernel module 8021q")
    node.run("ip", "address", "add", "10.3.0.1/24", "dev", "v0.100")
    node.run("ip", "address", "add", "fd03::1/64", "dev", "v0.100")
    node.run("ip", "link", "set", "v0.100", "up")
    node.run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.v0/100.rp_filter=0")

    def send():
        for frame in [*tagged_and_not(ether), datagram(ether, OTHER4, "end")]:
            out.send(bytes(frame))
        return {text for text in arrived(listener) if not text.startswith("tag 0")}

    of100, untagged = {"tag 100 vip4", "tag 100 vip6"}, {"untagged vip4", "untagged vip6"}
    assert send() == of100 | untagged
    install(node, ["v0"])
    assert send() == of100
    install(node, ["v0.100"])
    assert send() == untagged
    install(node, ["v0", "v0.100"])
    assert send() == set()


def test_installing_replaces_and_leaves_other_tables_alone(hosts):
    node = hosts[1]
    node.run("nft", "add", "table", "netdev", "theirs")
    node.run(
        "nft",
        "add",
        "chain",
        "netdev",
        "theirs",
        "c",
        "{ type filter hook ingress device v0 priority 0; }",
    )
    theirs = node.run("nft", "list", "table", "netdev", "theirs")
    assert missing(node)
    install(node, ["v0", "v1"])
    install(node, ["v0", "v1"])
    assert not missing(node, ["v0", "v1"])
    assert missing(node, ["v0"])
    install(node, ["v0"], VIPS[:1])
    assert not missing(node, vips=VIPS[:1])
    assert missing(node, vips=VIPS)
    assert not missing(node, vips=None)
    install(node, ["v0"], [])
    assert not missing(node, vips=[])
    call(node, guard.remove())
    call(node, guard.remove())
    assert missing(node)
    assert node.run("nft", "list", "ruleset") == theirs


@pytest.mark.parametrize(
    "damage",
    [
        "flush ruleset",
        "flush table netdev lbfwd",
        "flush set netdev lbfwd vip4",
        "delete element netdev lbfwd vip6 { 2001:db8:2::10 }",
        "add element netdev lbfwd vip4 { 192.0.2.99 }",
    ],
)
def test_damage_is_noticed_and_repaired(hosts, damage):
    node = hosts[1]
    install(node)
    node.run("nft", damage)
    assert missing(node)
    install(node)
    assert not missing(node)


def test_a_device_that_was_made_again_is_guarded_again(stack, hosts, listener):
    client, node, _ = hosts
    install(node)
    node.run("ip", "link", "delete", "v0")
    assert missing(node)
    client.run("ip", "link", "add", "v0", "type", "veth", "peer", "name", "v0", "netns", node.netns)
    for host, address in ((client, "10.1.0.2/24"), (node, "10.1.0.1/24")):
        host.run("ip", "address", "add", address, "dev", "v0")
        host.run("ip", "link", "set", "v0", "up")
    assert missing(node)
    install(node)
    assert not missing(node)
    with inside(client):
        out = stack.enter_context(sender("v0"))
    ether = Ether(src=mac(client, "v0"), dst=mac(node, "v0"))
    out.send(bytes(datagram(ether, VIP4, "vip4")))
    out.send(bytes(datagram(ether, OTHER4, "end")))
    assert arrived(listener) == []


def test_thousands_of_vips_in_one_transaction(hosts):
    node = hosts[1]
    vips = [ip_address(base) + i for base in ("10.9.0.0", "fd09::") for i in range(3000)]
    install(node, ["v0", "v1"], vips)
    assert not missing(node, ["v0", "v1"], vips)
    listing = json.loads(node.run("nft", "-j", "list", "table", "netdev", "lbfwd"))["nftables"]
    assert sorted(len(item["set"]["elem"]) for item in listing if "set" in item) == [3000, 3000]


def test_what_is_wrong_is_named(hosts, monkeypatch):
    node = hosts[1]
    with pytest.raises(guard.GuardError, match="ingress guard: nope: no such interface"):
        install(node, ["v0", "nope"])
    monkeypatch.setattr(guard.nft.shutil, "which", lambda *_, **__: None)
    with pytest.raises(guard.GuardError, match="ingress guard: no nft command: apt install"):
        install(node)


def test_without_the_capability_the_error_names_it(hosts):
    node = hosts[1]
    status = 0
    child = os.fork()
    if child == 0:
        with inside(node):
            os.setgroups([])
            os.setresuid(65534, 65534, 65534)
            try:
                asyncio.run(guard.install(["v0"], VIPS))
            except guard.GuardError as error:
                status = 7 if "needs CAP_NET_ADMIN" in str(error) else 8
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


OWN4, OWN6 = "10.1.0.1", "fd01::1"
OWN = [ip_address(OWN4), ip_address(OWN6)]


def handed_over(ether, version, mark=1, source=None):
    """A fragment in GRE to the node itself, as other nodes send it; or without the mark."""
    fragment = IP(src="198.51.100.1", dst=VIP4, flags="MF") / UDP(dport=PORT)
    ends = {"src": source or "10.1.0.2", "dst": OWN4} if version == 4 else {
        "src": source or "fd01::2", "dst": OWN6}  # fmt: skip
    head = IP(**ends) if version == 4 else IPv6(**ends)
    return ether / head / GRE(proto=0x0800, recursion_control=mark) / fragment


BEHIND = """
table netdev witness {
    chain behind {
        type filter hook ingress device "v0" priority 0;
        ip protocol gre counter comment "IPv4"
        ip6 nexthdr gre counter comment "IPv6"
    }
}
"""


def test_marked_gre_to_the_node_itself_is_kept_from_the_stack(hosts, wire, listener):
    """From anybody, tagged 0 or not; other GRE passes."""
    node = hosts[1]
    ether, out = wire
    node.run("nft", "-f", "-", stdin=BEHIND)

    def survivors(*frames):
        before = counts()
        for frame in (*frames, datagram(ether, OTHER4, "end")):
            out.send(bytes(frame))
        arrived(listener)
        return [now - was for was, now in zip(before, counts(), strict=True)]

    def counts():
        listing = json.loads(node.run("nft", "-j", "list", "table", "netdev", "witness"))
        rules = [item["rule"]["expr"] for item in listing["nftables"] if "rule" in item]
        return [c["counter"]["packets"] for expr in rules for c in expr if "counter" in c]

    priority = ether / Dot1Q(vlan=0)
    marked = [handed_over(below, version) for below in (ether, priority) for version in (4, 6)]
    marked.append(handed_over(ether, 4, source="10.1.0.77"))
    marked.append(handed_over(ether, 6, source="fd01::77"))
    install(node)
    assert survivors(*marked) == [3, 3]
    call(node, guard.install(["v0"], VIPS, OWN))
    assert survivors(*marked) == [0, 0]
    assert survivors(handed_over(ether, 4, mark=0), handed_over(ether, 6, mark=0)) == [1, 1]
    assert not call(node, guard.missing(["v0"], VIPS, OWN))
    assert missing(node)
    node.run("nft", "delete element netdev lbfwd own4 { 10.1.0.1 }")
    assert call(node, guard.missing(["v0"], VIPS, OWN))
