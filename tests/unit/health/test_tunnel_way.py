"""Which header, interface and source a probe through the tunnel has."""

from ipaddress import ip_address, ip_network

import pytest
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6

from lbfwd.config import Node
from lbfwd.health.tunnel_way import Directory, LocalAddress, Way, inner_source
from lbfwd.net.links import Link
from lbfwd.net.resolve import NextHop, Resolution
from lbfwd.ring import ProbePump

ETH0 = Link("eth0", 2, bytes.fromhex("020000000001"), 1500, True, True, True)
ETH1 = Link("eth1", 3, bytes.fromhex("020000000002"), 9000, True, True, True)
NODE = Node(name="lb1", interfaces=("eth0",))
V4, V6 = ip_address("10.0.0.1"), ip_address("fd00::1")
BACKEND4, BACKEND6 = ip_address("10.0.0.11"), ip_address("fd00::11")
LOCAL = (LocalAddress(V4, 2), LocalAddress(V6, 2))


def hop(link: Link = ETH0, source: object = V4, mtu: int = 1500) -> NextHop:
    return NextHop(link, bytes.fromhex("0a1b2c3d4e5f"), source, mtu, BACKEND4)  # type: ignore[arg-type]


def directory(
    resolution: Resolution, backend: object = BACKEND4, node: Node = NODE, local: object = LOCAL
) -> Directory:
    return Directory().renewed(node, local, {backend: resolution})  # type: ignore[arg-type, dict-item]


def outer(way: Way) -> IP | IPv6:
    """The outer header that the pump writes for a way."""
    pump = ProbePump()
    pump.aim(61000, way.path, way.ifindex)
    inner = bytes(IP(dst="192.0.2.10", proto=6)) + (61000).to_bytes(2, "big") * 4
    header, ifindex = pump.wrap(inner) or (b"", 0)
    assert ifindex == way.ifindex
    return IP(header[14:]) if header[12:14] == b"\x08\x00" else IPv6(header[14:])


def test_every_next_hop_is_a_way() -> None:
    found = directory(Resolution((hop(), hop(ETH1, mtu=9000)))).ways[BACKEND4]
    assert [(way.ifindex, way.mtu, way.path_mtu) for way in found] == [
        (2, 1476, 1500),
        (3, 8976, 9000),
    ]


def test_the_outer_source_is_the_data_planes() -> None:
    (way,) = directory(Resolution((hop(source=V6),)), BACKEND6).ways[BACKEND6]
    header = outer(way)
    assert (header.src, header.dst) == (str(V6), str(BACKEND6))
    assert way.mtu == 1456


def test_source_entropy_stands_for_the_outer_source() -> None:
    prefix = ip_network("10.99.0.0/16")
    node = Node(name="lb1", interfaces=("eth0",), source_entropy=(prefix,))
    (way,) = directory(Resolution((hop(),)), node=node).ways[BACKEND4]
    assert ip_address(outer(way).src) in prefix
    assert way.sources[4] == V4, "the inner source is this node's own"


@pytest.mark.parametrize(("df", "flag"), [(True, "DF"), (False, "")])
def test_df_is_as_the_node_says(df: bool, flag: str) -> None:
    node = Node(name="lb1", interfaces=("eth0",), outer_df=df)
    (way,) = directory(Resolution((hop(),)), node=node).ways[BACKEND4]
    assert str(outer(way).flags) == flag


@pytest.mark.parametrize(
    ("configured", "version", "local", "wanted"),
    [
        ([], 4, LOCAL, "10.0.0.1"),
        ([], 6, LOCAL, "fd00::1"),
        # [node] source comes first, where it is this machine's.
        (["10.7.7.7"], 4, [*LOCAL, LocalAddress(ip_address("10.7.7.7"), 1)], "10.7.7.7"),
        (["10.7.7.7"], 4, LOCAL, "10.0.0.1"),
        # The output interface's before any other.
        ([], 6, [LocalAddress(ip_address("fd99::9"), 9), *LOCAL], "fd00::1"),
        ([], 6, [LocalAddress(ip_address("fd99::9"), 9)], "fd99::9"),
        # Link-local, deprecated and the like are none.
        ([], 6, [LocalAddress(ip_address("fe80::1"), 2, fit=False)], None),
        ([], 6, LOCAL[:1], None),
    ],
)
def test_the_inner_source(
    configured: list[str], version: int, local: list[LocalAddress], wanted: str | None
) -> None:
    found = inner_source([ip_address(a) for a in configured], hop(), version, local)
    assert found == (ip_address(wanted) if wanted else None)


def test_a_backend_without_a_next_hop_has_no_way_but_a_reason() -> None:
    found = directory(Resolution((), "no route"))
    assert found.ways[BACKEND4] == ()
    assert found.resolutions[BACKEND4].reason == "no route"


def test_what_is_the_same_is_not_made_again_and_what_is_not_is() -> None:
    first = directory(Resolution((hop(),)))
    same = first.renewed(NODE, LOCAL, {BACKEND4: Resolution((hop(),))})
    assert same.ways[BACKEND4] is first.ways[BACKEND4]
    for other in (
        first.renewed(NODE, LOCAL, {BACKEND4: Resolution((hop(mtu=1400),))}),
        first.renewed(NODE, LOCAL[:1], {BACKEND4: Resolution((hop(),))}),
        first.renewed(
            Node(name="x", interfaces=("eth0",), outer_df=False),
            LOCAL,
            {BACKEND4: Resolution((hop(),))},
        ),
    ):
        assert other.ways[BACKEND4] != first.ways[BACKEND4]
    assert first.renewed(NODE, LOCAL, {}).ways == {}


def test_interfaces_are_those_of_the_ways() -> None:
    assert directory(Resolution((hop(), hop(ETH1)))).interfaces == {"eth0", "eth1"}
