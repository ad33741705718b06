"""The filter, run by a BPF machine that was written from the kernel's document."""

import random
from dataclasses import replace
from functools import lru_cache
from ipaddress import ip_address

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6, IPv6ExtHdrFragment
from scapy.packet import Packet, Raw

from lbfwd.capture.program import MOST_ADDRESSES, Pattern, Wanted, program
from lbfwd.net import bpf
from tests.oracle.encap import wrapped
from tests.unit.capture.site import ETHER
from tests.unit.net import cbpf

VIP4, VIP6 = ip_address("192.0.2.10"), ip_address("2001:db8::10")
OTHER4, OTHER6 = ip_address("192.0.2.11"), ip_address("2001:db8::11")
NODE = {4: ip_address("10.0.0.1"), 6: ip_address("fd00::1")}
BACKENDS = {4: ip_address("10.0.0.11"), 6: ip_address("fd00::11")}
STRANGERS = {4: ip_address("10.0.0.99"), 6: ip_address("fd00::99")}
MAC = bytes(6)
ALL = Wanted(vips=(VIP4, VIP6), backends=tuple(BACKENDS.values()), snaplen=200)
OUTGOING = 4


@lru_cache
def decoded(wanted: Wanted) -> list[tuple[int, int, int, int]]:
    found: list[tuple[int, int, int, int]] = cbpf.decode(bpf.encode(program(wanted)))
    return found


def run(wanted: Wanted, frame: bytes, kind: int = 0) -> int:
    packet = cbpf.Packet(frame, protocol=int.from_bytes(frame[12:14], "big"), pkttype=kind)
    return int(cbpf.execute(decoded(wanted), packet))


def ip(vip: object = VIP4, **fields: object) -> Packet:
    if vip.version == 4:  # type: ignore[attr-defined]
        return IP(src="198.51.100.2", dst=str(vip), **fields)
    return IPv6(src="2001:db8:c::2", dst=str(vip), **fields)


def received(wanted: Wanted, packet: Packet) -> bool:
    return run(wanted, bytes(ETHER / packet)) > 0


def sent(wanted: Wanted, packet: Packet, family: int, to: dict[int, object] = BACKENDS) -> bool:
    frame = wrapped(bytes(packet), NODE[family], to[family], MAC, MAC)
    return run(wanted, frame, OUTGOING) > 0


@pytest.mark.parametrize("vip", [VIP4, VIP6], ids=str)
@pytest.mark.parametrize("family", [4, 6])
def test_without_a_pattern(vip: object, family: int) -> None:
    other = OTHER4 if vip == VIP4 else OTHER6
    assert received(ALL, ip(vip) / TCP())
    assert not received(ALL, ip(other) / TCP())
    assert sent(ALL, ip(vip) / TCP(), family)
    assert not sent(ALL, ip(vip) / TCP(), family, STRANGERS)
    # A side that is not wanted, and packets on the wrong side.
    assert not received(replace(ALL, before=False), ip(vip) / TCP())
    assert not sent(replace(ALL, after=False), ip(vip) / TCP(), family)
    frame = wrapped(bytes(ip(vip) / TCP()), NODE[family], BACKENDS[family], MAC, MAC)
    assert not run(ALL, frame)
    assert not run(ALL, bytes(ETHER / ip(vip) / TCP()), OUTGOING)


def test_how_much_is_kept() -> None:
    assert run(ALL, bytes(ETHER / ip() / TCP() / Raw(b"x" * 500))) == 200


def test_only_gre_is_sent_to_backends() -> None:
    for family, outer in ((4, IP), (6, IPv6)):
        frame = bytes(ETHER / outer(dst=str(BACKENDS[family])) / TCP() / Raw(b"x" * 60))
        assert not run(ALL, frame, OUTGOING)


def test_more_backends_than_a_program_holds() -> None:
    many = tuple(ip_address(0x0B000000 + n) for n in range(MOST_ADDRESSES + 1))
    assert sent(replace(ALL, backends=many), ip() / TCP(), 4)
    exact = replace(ALL, backends=many[1:])
    assert not sent(exact, ip() / TCP(), 4)


FLOW = (TCP(sport=4000, dport=80), UDP(sport=4000, dport=80), TCP(sport=4001, dport=80),
        TCP(sport=4000, dport=81))  # fmt: skip


@pytest.mark.parametrize("vip", [VIP4, VIP6], ids=str)
@pytest.mark.parametrize("family", [0, 4, 6])
@pytest.mark.parametrize(
    ("port", "client", "client_port", "want"),
    [
        (None, False, None, [1, 0, 1, 1]),
        (80, False, None, [1, 0, 1, 0]),
        (80, True, 4000, [1, 0, 0, 0]),
        (None, True, 4000, [1, 0, 0, 1]),
    ],
)
def test_patterns(  # noqa: PLR0917 - a row of the table; family 0: received
    vip: object, family: int, port: int | None, client: bool, client_port: int | None, want: object
) -> None:
    source = ip_address(ip(vip).src) if client else None
    wanted = replace(ALL, pattern=Pattern(vip, 6, port, source, client_port))  # type: ignore[arg-type]
    packets = [ip(vip) / transport for transport in FLOW]
    found = [sent(wanted, p, family) if family else received(wanted, p) for p in packets]
    assert found == want
    other = ip(OTHER4 if vip == VIP4 else OTHER6) / FLOW[0]
    assert not (sent(wanted, other, family) if family else received(wanted, other))


def test_a_client_is_a_whole_address() -> None:
    for vip in (VIP4, VIP6):
        stranger = ip_address(int(ip_address(ip(vip).src)) + 1)
        wanted = replace(ALL, pattern=Pattern(vip, 6, 80, stranger))
        assert not received(wanted, ip(vip) / FLOW[0])


def test_what_may_belong_to_the_flow_is_let_in() -> None:
    four = replace(ALL, pattern=Pattern(VIP4, 6, 80, ip_address("198.51.100.2"), 4000))
    six = replace(ALL, pattern=Pattern(VIP6, 6, 80, ip_address("2001:db8:c::2"), 4000))
    assert received(four, IP(src="203.0.113.1", dst=str(VIP4)) / ICMP(type=3) / Raw(b"x" * 28))
    assert received(six, IPv6(src="2001:db8:f::1", dst=str(VIP6)) / ICMPv6PacketTooBig())
    assert received(four, ip(VIP4, frag=10, proto=6) / Raw(b"x" * 20))
    assert received(six, ip(VIP6) / IPv6ExtHdrFragment(offset=10, nh=6) / Raw(b"x" * 20))
    assert received(four, IP(src="198.51.100.2", dst=str(VIP4), options=b"\x01" * 4) / FLOW[0])


def packets(dice: random.Random, count: int) -> list[Packet]:
    found = []
    for n in range(count):
        base = ip(VIP4, id=n) if dice.random() < 0.5 else ip(VIP6)
        ports = {"sport": dice.randrange(1024, 65536), "dport": 80}
        transport = TCP(seq=n * 1448, **ports) if dice.random() < 0.5 else UDP(**ports)
        found.append(base / transport / Raw(dice.randbytes(dice.randrange(40))))
    return found


def test_a_sample_has_both_sides_of_a_packet() -> None:
    wanted = replace(ALL, sample=8)
    found = packets(random.Random(20261124), 800)
    before = [received(wanted, p) for p in found]
    assert [sent(wanted, p, 4) for p in found] == before
    assert [sent(wanted, p, 6) for p in found] == before
    assert 62 < sum(before) < 138  # 100, and four standard deviations


def test_a_sample_is_of_packets_not_of_flows() -> None:
    wanted = replace(ALL, sample=4)
    stream = [ip(VIP4, id=n) / TCP(sport=4000, dport=80, seq=n * 1448) for n in range(400)]
    assert 60 < sum(received(wanted, p) for p in stream) < 140
    datagrams = [ip(VIP6) / UDP(sport=4, dport=53) / Raw(random.Random(n).randbytes(9))
                 for n in range(400)]  # fmt: skip
    assert 60 < sum(received(wanted, p) for p in datagrams) < 140
