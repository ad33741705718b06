"""Flows as Scapy builds them."""

from ipaddress import ip_address

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    PadN,
)
from scapy.layers.l2 import GRE, Dot1Q
from scapy.packet import Packet, Raw

from lbfwd.capture.packet import Flow, flow, ip_packet, tunnelled
from tests.unit.capture.site import ETHER

CLIENT4, VIP4 = "198.51.100.2", "192.0.2.10"
CLIENT6, VIP6 = "2001:db8:c::2", "2001:db8::10"
IN4, IN6 = IP(src=CLIENT4, dst=VIP4), IPv6(src=CLIENT6, dst=VIP6)
BACK4, BACK6 = IP(src=VIP4, dst=CLIENT4), IPv6(src=VIP6, dst=CLIENT6)
ROUTER4, ROUTER6 = IP(src="203.0.113.1", dst=VIP4), IPv6(src="2001:db8:ff::1", dst=VIP6)
PADDING = IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 12)])
FLOW4 = Flow(6, ip_address(CLIENT4), 4000, ip_address(VIP4), 80)
FLOW6 = Flow(17, ip_address(CLIENT6), 4000, ip_address(VIP6), 53)
TCP_IN, UDP_IN = TCP(sport=4000, dport=80), UDP(sport=4000, dport=53)
TCP_BACK, UDP_BACK = TCP(sport=80, dport=4000), UDP(sport=53, dport=4000)


@pytest.mark.parametrize(
    ("packet", "want"),
    [
        (IN4 / TCP_IN / Raw(b"x"), FLOW4),
        (IP(src=CLIENT4, dst=VIP4, options=b"\x01" * 8) / TCP_IN, FLOW4),
        (IN6 / UDP_IN, FLOW6),
        (IN6 / PADDING / UDP_IN, FLOW6),
        (IN6 / IPv6ExtHdrFragment(offset=0, m=1) / UDP_IN, FLOW6),
        (ROUTER4 / ICMP(type=3, code=4) / BACK4 / TCP_BACK, FLOW4),
        (ROUTER6 / ICMPv6PacketTooBig() / BACK6 / UDP_BACK, FLOW6),
        (IN4 / ICMP() / BACK4 / TCP_BACK, None),  # an echo request, whatever it carries
        (IN6 / ICMPv6EchoRequest(data=bytes(BACK6 / UDP_BACK)), None),
        (IP(src=CLIENT4, dst=VIP4, proto=132) / Raw(b"x" * 20), None),
    ],
    ids=range(10),
)
def test_flow(packet: Packet, want: Flow | None) -> None:
    assert flow(bytes(packet)) == want


@pytest.mark.parametrize(
    "packet",
    [
        IP(src=CLIENT4, dst=VIP4, frag=100, proto=6) / Raw(bytes(TCP_IN)),
        IN6 / IPv6ExtHdrFragment(offset=100, m=1, nh=6) / Raw(bytes(TCP_IN)),
    ],
    ids=["4", "6"],
)
def test_a_later_fragment_shows_no_ports(packet: Packet) -> None:
    found = flow(bytes(packet))
    assert found is not None
    assert (found.source_port, found.port) == (None, None)


def test_what_is_cut_has_no_flow_and_raises_nothing() -> None:
    for packet in (IN4 / TCP_IN, IN6 / PADDING / UDP_IN, ROUTER4 / ICMP(type=3) / BACK4 / TCP_BACK):
        for length in range(len(packet)):
            found = flow(bytes(packet)[:length])
            assert found is None or found.port in (None, 80, 53)


def test_inside_of_frames() -> None:
    inner = IN6 / UDP_IN
    for outer in (IP(src="10.0.0.1", dst="10.0.0.11"), IPv6(src="fd00::1", dst="fd00::11")):
        packet = ip_packet(bytes(ETHER / outer / GRE(proto=0x86DD) / inner))
        assert tunnelled(packet) == bytes(inner)
        assert not tunnelled(bytes(outer / GRE(proto=0x86DD, key_present=1, key=1) / inner))
        assert not tunnelled(bytes(outer / inner))
    assert ip_packet(bytes(ETHER / Dot1Q(vlan=5) / inner)) == bytes(inner)
    assert ip_packet(bytes(ETHER)[:12] + b"\x08\x06" + bytes(inner)) == b""
