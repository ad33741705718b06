"""Random valid packets of every row of docs/packets.md, against the oracles byte for byte."""

import random
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import (
    ICMP,
    TCP,
    UDP,
    IPOption_LSRR,
    IPOption_NOP,
    IPOption_Router_Alert,
    IPOption_RR,
)
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from tests.oracle import answer, encap, fragments
from tests.packet import bench, quoted
from tests.packet.bench import MTU, VIP4, VIP6, Bench
from tests.packet.crafted import ethernet, ip, raw

OVERHEAD = {4: 24, 6: 44}
IP_BYTES = {4: 20, 6: 40}
clock = count(1_000_000, 10_000)  # ms: a new packet finds no fragments, and may be answered
EMPTY_PORT = 99

families = st.sampled_from([4, 6])
ports = st.integers(0, 65535)
numbers = st.integers(0, 2**32 - 1)
payloads = st.builds(
    lambda seed, length: random.Random(seed).randbytes(length),
    st.integers(0, 2**32),
    st.integers(0, 1300),
)
options4 = st.lists(
    st.sampled_from(
        [
            IPOption_NOP(),
            IPOption_Router_Alert(),
            IPOption_RR(routers=["0.0.0.0"]),
            IPOption_LSRR(routers=["192.0.2.1"]),
        ]
    ),
    max_size=4,
)
extensions6 = st.lists(
    st.one_of(
        st.builds(
            lambda n: IPv6ExtHdrHopByHop(options=[PadN(optdata=bytes(n))]), st.integers(0, 99)
        ),
        st.builds(
            lambda n: IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(n))]), st.integers(0, 99)
        ),
        st.builds(lambda: IPv6ExtHdrRouting(segleft=0)),
        st.builds(lambda number: IPv6ExtHdrFragment(id=number), st.integers(0, 2**32 - 1)),
    ),
    max_size=3,
)


@st.composite
def heads(draw: st.DrawFn, family: int, extended: bool = True) -> Packet:
    """The client's IP header, whatever it may have in it."""
    tos = draw(st.integers(0, 255))
    if family == 4:
        source = draw(st.ip_addresses(network="198.51.100.0/22"))
        return ip(
            4,
            src=str(source),
            tos=tos,
            ttl=draw(st.integers(1, 255)),
            id=draw(st.integers(0, 65535)),
            options=draw(options4) if extended else [],
        )
    source = draw(st.ip_addresses(network="2001:db8:5::/64"))
    head = ip(6, src=str(source), tc=tos, fl=draw(st.integers(0, 2**20 - 1)))
    for header in draw(extensions6) if extended else []:
        head /= header.copy()
    return head


@st.composite
def segments(draw: st.DrawFn, port: int | None = None) -> Packet:
    """A TCP segment or a UDP datagram to one of the services."""
    port = draw(st.sampled_from([84, 86])) if port is None else port
    if draw(st.booleans()):
        return UDP(sport=draw(ports), dport=port)
    flags = draw(st.integers(0, 255))
    seq, ack = draw(numbers), draw(numbers)
    return TCP(sport=draw(ports), dport=port, flags=flags, seq=seq, ack=ack)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    directory: Path = tmp_path_factory.mktemp("node")
    state = bench.all_combinations()
    empty = [
        bench.service(vip, protocol, EMPTY_PORT, "empty", empty="reject")
        for vip in (VIP4, VIP6)
        for protocol in ("tcp", "udp")
    ]
    pools = [*state.pools, bench.pool("empty", [])]
    node = Bench(directory, bench.forwarding([*state.services, *empty], pools))
    yield node
    node.close()


@given(st.data())
@settings(max_examples=400)
def test_packets_that_fit(node: Bench, data: st.DataObject) -> None:
    family = data.draw(families)
    payload = data.draw(payloads)[:900]
    frame = raw(data.draw(heads(family)), data.draw(segments()), Raw(payload))
    outcome = node.forward(frame, now_ms=next(clock))
    node.assert_forwarded(frame, outcome, [frame[14:]])


@given(st.data())
@settings(max_examples=200)
def test_packets_that_are_too_big(node: Bench, data: st.DataObject) -> None:
    """Split where the sender allows it; else told."""
    family = data.draw(families)
    head = data.draw(heads(family))
    if family == 4:
        head.flags = data.draw(st.sampled_from(["", "DF"]))
    payload = data.draw(payloads) + bytes(1500)
    frame = raw(head, data.draw(segments()), Raw(payload))
    outer = node.choose(frame)[2].destination.version
    mtu = MTU - OVERHEAD[outer]
    outcome = node.forward(frame, now_ms=next(clock))
    if family == 4 and not head.flags:
        parts = fragments.split(frame[14:], mtu)
        node.assert_forwarded(frame, outcome, parts, {"packet_split": 1})
        assert fragments.reassemble(parts) == frame[14:]
    else:
        node.assert_answered(outcome, "too_big", answer.too_big(frame, mtu), "too_big_sent")


@given(st.data())
@settings(max_examples=200)
def test_fragments_in_any_order(node: Bench, data: st.DataObject) -> None:
    """All arrive: those before the first behind it, and all at one backend."""
    family = data.draw(families)
    head, segment = data.draw(heads(family, extended=False)), data.draw(segments())
    packet = bytes(head / segment / Raw(data.draw(payloads) + bytes(1000)))
    size = data.draw(st.integers(5, 120)) * 8
    if family == 4:
        parts = fragments.split(packet, 20 + size)
    else:
        sizes = [size] * (len(packet) // size + 1)
        parts = fragments.fragment6(packet, sizes[: -(-(len(packet) - 40) // size)], 77)
    frames = [bytes(ethernet())[:12] + (b"\x08\x00", b"\x86\xdd")[family == 6] + p for p in parts]
    order = data.draw(st.permutations(range(len(frames))))
    outcome = node.forward(*[frames[n] for n in order], now_ms=next(clock))
    early = order.index(0)
    both = [node.wrapped(frames[0], parts[n]) for n in (0, *order[:early], *order[early + 1 :])]
    assert outcome.sent == {both[0][0]: [sent for _tx, sent in both]}
    assert outcome.drops == {}


@given(st.data())
@settings(max_examples=200)
def test_errors(node: Bench, data: st.DataObject) -> None:
    """Of every kind, quoting 8 bytes of transport header or more."""
    family, name = data.draw(st.sampled_from(quoted.EVERY))
    protocol, port = (
        data.draw(st.sampled_from(["tcp", "udp"])),
        data.draw(st.sampled_from([84, 86])),
    )
    sport = data.draw(ports)
    options = data.draw(options4) if family == 4 else []
    fields = {"options": options} if family == 4 else {}
    packet = bytes(quoted.answer_of_the_vip(family, protocol, port, sport, **fields))
    header = 4 * (packet[0] & 15) if family == 4 else 40
    frame = quoted.error(family, packet[: header + data.draw(st.integers(8, 100))], name)
    flow = raw(ip(family), (TCP if protocol == "tcp" else UDP)(sport=sport, dport=port))
    outcome = node.forward(frame, now_ms=next(clock))
    tx, sent = node.wrapped(flow, frame[14:])
    assert outcome.sent == {tx: [sent]}
    assert outcome.drops == {}


@given(st.data())
@settings(max_examples=200)
def test_echo_requests(node: Bench, data: st.DataObject) -> None:
    family = data.draw(families)
    head = data.draw(heads(family))
    if family == 6 and IPv6ExtHdrFragment in head:
        head = ip(6)
    number, seq = data.draw(ports), data.draw(ports)
    body = data.draw(payloads)
    if family == 4:
        frame = raw(head, ICMP(id=number, seq=seq), Raw(body))
    else:
        frame = raw(head, ICMPv6EchoRequest(data=body, id=number, seq=seq))
    outcome = node.forward(frame, now_ms=next(clock))
    node.assert_answered(outcome, "echo_answered", answer.echo_reply(frame))


@given(st.data())
@settings(max_examples=200)
def test_services_without_a_backend(node: Bench, data: st.DataObject) -> None:
    family = data.draw(families)
    frame = raw(data.draw(heads(family)), data.draw(segments(EMPTY_PORT)), Raw(data.draw(payloads)))
    outcome = node.forward(frame, now_ms=next(clock))
    segment = segment_of(frame)
    if isinstance(segment, UDP):
        told, event = answer.port_unreachable(frame), "unreachable_sent"
    elif segment.flags.R:
        node.assert_dropped(outcome, "no_backend")
        return
    else:
        told, event = answer.reset(frame), "reset_sent"
    node.assert_answered(outcome, "rejected", told, event)


def segment_of(frame: bytes) -> Packet:
    packet = Ether(frame)
    segment: Packet = packet[TCP] if TCP in packet else packet[UDP]
    return segment


@given(st.data())
@settings(max_examples=200)
def test_to_nobody_and_to_no_service(node: Bench, data: st.DataObject) -> None:
    family = data.draw(families)
    head = data.draw(heads(family))
    head.dst = data.draw(
        st.ip_addresses(network="203.0.113.0/24" if family == 4 else "2001:db8:9::/64").map(str)
    )
    frame = raw(head, data.draw(segments()), Raw(data.draw(payloads)))
    node.assert_dropped(node.forward(frame, now_ms=next(clock)), "no_vip")
    port = data.draw(ports.filter(lambda port: port not in (84, 86, EMPTY_PORT)))
    frame = raw(data.draw(heads(family)), data.draw(segments(port)), Raw(b"x"))
    node.assert_dropped(node.forward(frame, now_ms=next(clock)), "no_service")


@given(st.data())
@settings(max_examples=100)
def test_what_the_backend_unwraps_is_what_came(node: Bench, data: st.DataObject) -> None:
    """By Scapy's dissection, not by our own idea of the frame."""
    frame = raw(data.draw(heads(4, extended=False)), data.draw(segments()), Raw(b"hello"))
    (sent,) = node.forward(frame, now_ms=next(clock)).frames
    assert encap.unwrapped(sent) == frame[14:]
