"""A fleet of three nodes around the node in memory, and what another one hands over to it."""

import dataclasses
from ipaddress import ip_address

from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import GRE
from scapy.packet import Raw

from lbfwd.encap import PEER_MARK
from lbfwd.forwarding import PeerNode, Peers
from tests.packet import bench
from tests.packet.crafted import ethernet

NAMES = ("lb1", "lb2", "lb3")
HERE = "lb2"
PEERS = {4: ip_address("10.0.0.201"), 6: ip_address("fd00::c9")}  # of lb1: bench.path(…, 201)


def peers(
    outer: int = 4, live: tuple[str, ...] = NAMES, paths: bool = True, mtu: int = bench.MTU
) -> Peers:
    """Three nodes; this one is lb2, and the others are reached over one family."""

    def node(number: int, name: str) -> PeerNode:
        host = 200 + number
        addresses = (bench.address(4, host), bench.address(6, host))
        if name == HERE:
            return PeerNode(name, (bench.NODE[4], bench.NODE[6]), name in live, ())
        hop = dataclasses.replace(bench.path(outer, host, mtu=mtu), gre_flags=PEER_MARK)
        return PeerNode(name, addresses, name in live, (hop,) if paths else ())

    return Peers(tuple(node(n, name) for n, name in enumerate(NAMES, 1)), HERE)


def from_peer(inner: bytes, outer: int = 4, **fields: object) -> bytes:
    """A frame from lb1 to this node."""
    ends = {"src": str(PEERS[outer]), "dst": str(bench.NODE[outer])}
    head = (IP if outer == 4 else IPv6)(**(ends | fields))
    proto = 0x0800 if inner[0] >> 4 == 4 else 0x86DD
    return bytes(ethernet() / head / GRE(proto=proto, recursion_control=1) / Raw(inner))
