"""What nodes hand over to each other: which frames the filter admits, and to which worker they go.

The programs run on tests/unit/net/cbpf.py; frames are Scapy's.
"""

from ipaddress import ip_address

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import GRE, Ether
from scapy.packet import Raw

from lbfwd.net.bpf import encode
from lbfwd.net.filter import Peers, vip_filter
from tests.unit.net.cbpf import Packet, run
from tests.unit.net.test_fanout import Fanout

OWN = {4: "203.0.113.10", 6: "2001:db8:f::10"}
OTHER = {4: "203.0.113.11", 6: "2001:db8:f::11"}
THIRD = {4: "203.0.113.12", 6: "2001:db8:f::12"}
STRANGER = {4: "203.0.113.13", 6: "2001:db8:f::13"}
VIP = {4: "192.0.2.10", 6: "2001:db8::10"}
VIPS = [ip_address(vip) for vip in VIP.values()]
PEERS = Peers(
    frozenset(map(ip_address, OWN.values())),
    frozenset(map(ip_address, (*OTHER.values(), *THIRD.values()))),
)
ETHERTYPE = {4: 0x0800, 6: 0x86DD}
FAMILIES = (4, 6)
ETHERNET = Ether(src="02:00:00:00:00:fe", dst="02:00:00:00:00:01")  # Scapy would ask for them


def fragment(family, number=1, later=False):
    if family == 4:
        head = IP(src=f"198.51.100.{number % 250}", dst=VIP[4], id=number, proto=17)
        head.flags, head.frag = ("", 100) if later else ("MF", 0)
    else:
        head = IPv6(src=f"2001:db8:1::{number:x}", dst=VIP[6])
        head /= IPv6ExtHdrFragment(nh=17, id=number, m=not later, offset=100 * later)
    return head / (Raw(bytes(16)) if later else UDP(sport=number, dport=80))


def gre(outer, inner, mark=1, source=OTHER, target=OWN, **fields):
    head = (IP if outer == 4 else IPv6)(src=source[outer], dst=target[outer], **fields)
    return head / GRE(proto=ETHERTYPE[inner.version], recursion_control=mark) / inner


def admitted(packet, outer, vips=VIPS, peers=PEERS):
    frame = packet if isinstance(packet, bytes) else bytes(ETHERNET / packet)
    return run(encode(vip_filter(vips, (), peers)), Packet(frame, ETHERTYPE[outer])) != 0


@pytest.mark.parametrize("vips", [VIPS, []], ids=["VIPs", "none"])
@pytest.mark.parametrize("outer", FAMILIES)
@pytest.mark.parametrize("inner", FAMILIES)
def test_what_the_filter_admits(outer, inner, vips):
    part = fragment(inner)
    assert admitted(gre(outer, part), outer, vips)
    assert admitted(gre(outer, part, source=THIRD), outer, vips)
    assert not admitted(gre(outer, part), outer, vips, Peers())
    for other in (
        gre(outer, part, mark=0),
        gre(outer, part, mark=3),
        gre(outer, part, source=STRANGER),
        gre(outer, part, source=OWN),
        gre(outer, part, target=THIRD),
        gre(outer, part, **({"proto": 48} if outer == 4 else {"nh": 48})),
    ):
        assert not admitted(other, outer, vips)
    assert admitted(part, inner, vips) == bool(vips)


def test_options_are_not_looked_behind():
    assert not admitted(gre(4, fragment(4), options=[b"\x01\x01\x01\x01"]), 4)


@pytest.mark.parametrize("outer", FAMILIES)
def test_what_ends_before_the_mark_is_not_admitted(outer):
    frame = bytes(ETHERNET / gre(outer, fragment(outer)))
    end, destination = {4: (36, 34), 6: (56, 54)}[outer]
    for length in range(destination, end):
        assert not admitted(frame[:length], outer)
    assert admitted(frame[:end], outer)


def slot(fanout, packet, outer):
    return fanout(Packet(bytes(packet), ETHERTYPE[outer]))


@pytest.mark.parametrize("alive", [None, {0, 2}], ids=["all", "one dead"])
@pytest.mark.parametrize("outer", FAMILIES)
@pytest.mark.parametrize("inner", FAMILIES)
def test_they_meet_those_that_come_by_themselves(inner, outer, alive):
    """Whichever node hands them over; and datagrams are spread over all workers."""
    fanout = Fanout(3, alive)
    seen = set()
    for number in range(1, 100):
        plain = {slot(fanout, fragment(inner, number, later), inner) for later in (False, True)}
        handed = {
            slot(fanout, gre(outer, fragment(inner, number, later), source=source), outer)
            for later in (False, True)
            for source in (OTHER, THIRD)
        }
        assert plain == handed
        assert len(handed) == 1
        seen |= handed
    assert seen == (alive or {0, 1, 2})


@pytest.mark.parametrize("outer", FAMILIES)
def test_other_gre_goes_by_its_own_addresses(outer):
    fanout = Fanout(8)
    slots = {slot(fanout, gre(outer, fragment(4, n), mark=0), outer) for n in range(1, 50)}
    assert len(slots) == 1


@pytest.mark.parametrize("outer", FAMILIES)
@pytest.mark.parametrize("inner", FAMILIES)
def test_cut_anywhere_a_living_worker_gets_it(inner, outer):
    fanout = Fanout(3, {1, 2})
    whole = bytes(gre(outer, fragment(inner)))
    for length in range(len(whole)):
        assert fanout(Packet(whole[:length], ETHERTYPE[outer])) in (1, 2)
