"""The decapsulator in C against packets that Scapy builds."""

import random
import struct

import pytest
from scapy.layers.inet import IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import GRE
from scapy.utils import checksum

from lbfwd import ring
from tests.unit.backend.gre import Bench, inner4, inner6

OUTER = IP(src="10.0.0.1", dst="10.0.0.12")


@pytest.fixture
def bench():
    made = Bench()
    yield made
    made.close()


@pytest.mark.parametrize("inner", [inner4(), inner6(), inner4(0), inner6(0, UDP()), inner4(1460)])
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("chksum_present", [0, 1])
def test_the_inner_packet_arrives_byte_for_byte(bench, inner, family, chksum_present):
    gre = GRE(chksum_present=chksum_present) / inner
    bench.give(OUTER / gre if family == 4 else gre, family)
    assert bench.take() == bytes(inner)
    bench.flush(family)
    assert bench.counters.packets == 2
    assert bench.counters.bytes == len(inner) + 28
    assert (bench.counters.malformed, bench.counters.refused) == (0, 0)


def test_outer_options_are_skipped(bench):
    bench.give(IP(options=[IPOption_NOP()] * 8) / GRE() / inner4())
    assert bench.take() == bytes(inner4())


def test_padding_behind_the_inner_packet_is_cut(bench):
    bench.give(bytes(OUTER / GRE() / inner4(1)) + bytes(18))
    bench.give(bytes(GRE() / inner6(1)) + bytes(18), 6)
    assert {bench.take(), bench.take()} == {bytes(inner4(1)), bytes(inner6(1))}


@pytest.mark.parametrize(
    "gre",
    [
        GRE(version=1),
        GRE(version=7),
        GRE(key_present=1, key=5),
        GRE(seqnum_present=1, sequence_number=1),
        GRE(routing_present=1),
        GRE(strict_route_source=1),
        GRE(recursion_control=4),
        GRE(proto=0x6558),
        GRE(proto=0x8847),
    ],
    ids=lambda gre: bytes(gre)[:4].hex(),
)
def test_what_this_end_does_not_speak_is_refused(bench, gre):
    bench.give(OUTER / gre / bytes(inner4()))
    assert bench.flush() == []
    assert (bench.counters.malformed, bench.counters.refused) == (0, 1)


def _spoiled_checksum():
    packet = bytearray(bytes(GRE(chksum_present=1) / inner4()))
    packet[-1] ^= 1
    return bytes(packet)


def _with(packet, offset, value):
    changed = bytearray(bytes(packet))
    changed[offset : offset + len(value)] = value
    return bytes(changed)


MALFORMED = {
    "nothing": b"",
    "half a GRE header": bytes(GRE())[:3],
    "checksum missing": bytes.fromhex("80000800"),
    "wrong GRE checksum": _spoiled_checksum(),
    "no inner packet": bytes(GRE(proto=0x0800)),
    "IPv6 said to be IPv4": bytes(GRE(proto=0x0800) / bytes(inner6())),
    "IPv4 said to be IPv6": bytes(GRE(proto=0x86DD) / bytes(inner4())),
    "inner IPv4 cut": bytes(GRE() / inner4())[:-1],
    "inner IPv6 cut": bytes(GRE() / inner6())[:-1],
    "inner IPv4 header cut": bytes(GRE(proto=0x0800) / bytes(inner4())[:19]),
    "inner IPv6 header cut": bytes(GRE(proto=0x86DD) / bytes(inner6())[:39]),
    "inner header length 16": bytes(GRE(proto=0x0800) / _with(inner4(), 0, b"\x44")),
    "inner total length below its header": bytes(
        GRE(proto=0x0800) / _with(inner4(), 2, b"\x00\x13")
    ),
}


@pytest.mark.parametrize("gre", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_contradicts_itself_is_malformed(bench, gre):
    bench.give(bytes(IP(proto=47, len=20 + len(gre))) + gre)
    assert bench.flush() == []
    assert (bench.counters.malformed, bench.counters.refused) == (1, 0)


@pytest.mark.parametrize(
    "outer", [b"\x45", b"\x44" + bytes(40), b"\x65" + bytes(40), b"\x4f" + bytes(40)]
)
def test_an_impossible_outer_header_is_malformed(bench, outer):
    bench.give(outer)
    assert bench.flush() == []
    assert bench.counters.malformed == 1


def unfinished(packet, transport):
    """Leave the checksum as an offloading sender does: the sum of the pseudo header alone."""
    segment = bytes(packet[transport])
    protocol = {TCP: 6, UDP: 17}[transport]
    if IP in packet:
        pseudo = bytes(packet[IP])[12:20] + struct.pack("!BBH", 0, protocol, len(segment))
    else:
        pseudo = bytes(packet[IPv6])[8:40] + struct.pack("!IBBBB", len(segment), 0, 0, 0, protocol)
    offset = len(packet) - len(segment) + {TCP: 16, UDP: 6}[transport]
    return _with(packet, offset, struct.pack("!H", ~checksum(pseudo) & 0xFFFF))


@pytest.mark.parametrize("size", [0, 1, 1399, 60000])
@pytest.mark.parametrize("make", [inner4, inner6])
@pytest.mark.parametrize("transport", [TCP, UDP])
def test_a_checksum_left_to_hardware_is_finished(bench, make, transport, size):
    whole = make(size, transport(sport=1234, dport=80))
    offloaded = unfinished(whole, transport)
    assert offloaded != bytes(whole)
    bench.give(OUTER / GRE(proto=0x0800 if make is inner4 else 0x86DD) / offloaded)
    assert bench.take() == bytes(whole)


def test_a_wrong_checksum_stays_wrong(bench):
    """Only the end that reads the data may judge it."""
    wrong = inner4(10, TCP(dport=80, chksum=0x1234))
    bench.give(OUTER / GRE() / wrong)
    assert bench.take() == bytes(wrong)


@pytest.mark.parametrize(
    "fragment",
    [
        IP(dst="192.0.2.10", flags="MF", proto=17) / bytes(64),
        IP(dst="192.0.2.10", frag=3, proto=17) / bytes(64),
        IPv6(dst="2001:db8::10") / IPv6ExtHdrFragment(offset=3, nh=17) / bytes(64),
    ],
)
def test_fragments_pass_untouched(bench, fragment):
    bench.give(OUTER / GRE() / fragment)
    assert bench.take() == bytes(fragment)


def test_nonsense_is_counted_once_each_and_kills_nothing(bench):
    chance = random.Random(20261124)
    seed = bytes(OUTER / GRE(chksum_present=1) / inner6(40))
    count = 3000
    delivered = 0
    for number in range(count):
        junk = bytearray(seed[: chance.randrange(1, len(seed) + 1)])
        for _ in range(chance.randrange(4)):
            junk[chance.randrange(len(junk))] = chance.randrange(256)
        bench.give(junk)
        if number % 16 == 15:  # before the socket's buffer is full
            delivered += len(bench.flush()) + 1
    delivered += len(bench.flush()) + 1
    counters = bench.counters
    assert counters.packets == delivered
    assert counters.packets + counters.malformed + counters.refused == bench.given
    assert counters.malformed > 0
    assert counters.refused > 0


def test_a_descriptor_that_fails_ends_it_with_the_reason():
    with pytest.raises(OSError, match="Bad file descriptor"):
        ring.decap(-1, 9999, -1, -1, ring.DecapCounters())
