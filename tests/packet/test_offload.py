"""What a sender left to hardware is finished: checksums, and super-frames cut to packets."""

import struct
from ipaddress import ip_address
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet, Raw
from scapy.utils import checksum

from tests.oracle import answer, fragments, segment
from tests.packet import bench
from tests.packet.bench import MTU, Bench, BenchMaker
from tests.packet.crafted import (
    CSUM_OFFSET,
    GSO_ECN,
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP_L4,
    NEEDS_CSUM,
    ethernet,
    ip,
    offload,
    transport,
)

FAMILIES = (4, 6)
GSO_TCP = {4: GSO_TCPV4, 6: GSO_TCPV6}
IP_BYTES = {4: 20, 6: 40}
NUMBERS = {"tcp": 6, "udp": 17}
OVERHEAD = {4: 24, 6: 44}


@pytest.fixture
def node(make_bench: BenchMaker) -> Bench:
    return make_bench(bench.all_combinations(), tx_slots=1024)


def pseudo_sum(header: Packet, protocol: str, length: int) -> int:
    """What a sender puts into the field: the pseudo-header's sum, not complemented."""
    addresses = ip_address(header.src).packed + ip_address(header.dst).packed
    return int(~checksum(addresses + struct.pack("!II", length, NUMBERS[protocol])) & 0xFFFF)


def unfinished(
    family: int,
    protocol: str,
    payload: bytes,
    ip_fields: dict[str, Any] | None = None,
    **fields: Any,
) -> tuple[bytes, bytes, bytes]:
    """A frame without its checksum, its offload header, and the finished IP packet."""
    header, segment = ip(family, **(ip_fields or {})), transport(protocol, **fields)
    finished = bytes(header / segment / Raw(payload))
    ip_bytes = 4 * (finished[0] & 15) if family == 4 else 40
    segment.chksum = pseudo_sum(header, protocol, len(finished) - ip_bytes)
    meta = offload(NEEDS_CSUM, csum_start=14 + ip_bytes, csum_offset=CSUM_OFFSET[protocol])
    return bytes(ethernet() / header / segment / Raw(payload)), meta, finished


# ---- checksums ----


@pytest.mark.parametrize("length", [0, 1, 2, 3, 7, 8, 9, 63, 64, 65, 1399])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_checksum_left_to_hardware(node: Bench, family: int, protocol: str, length: int) -> None:
    payload = bytes(n * 7 & 0xFF for n in range(length))
    frame, meta, finished = unfinished(family, protocol, payload)
    assert frame[14:] != finished
    node.assert_forwarded(frame, node.forward(frame, offload=meta), [finished])


def test_behind_ipv4_options(node: Bench) -> None:
    options = {"options": [IPOption_NOP()] * 40}
    frame, meta, finished = unfinished(4, "tcp", b"hello", options, options=[("MSS", 1400)])
    assert meta[6] == 14 + 60
    node.assert_forwarded(frame, node.forward(frame, offload=meta), [finished])


@pytest.mark.parametrize("padding", [b"\0" * 9, b"\xff" * 9])
def test_padding_is_not_summed(node: Bench, padding: bytes) -> None:
    frame, meta, finished = unfinished(4, "udp", b"odd")
    node.assert_forwarded(frame, node.forward(frame + padding, offload=meta), [finished])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_udp_checksum_of_0_is_sent_as_ffff(node: Bench, family: int) -> None:
    """RFC 768: 0 would say that there is none."""
    blank = bytes(ip(family) / UDP(sport=1, dport=84) / Raw(b"\0\0"))
    missing = int.from_bytes(blank[IP_BYTES[family] + 6 :][:2], "big")
    frame, meta, finished = unfinished(family, "udp", missing.to_bytes(2, "big"), sport=1)
    assert finished[IP_BYTES[family] + 6 :][:2] == b"\xff\xff"
    node.assert_forwarded(frame, node.forward(frame, offload=meta), [finished])


def test_a_tcp_checksum_of_0_stays_0(node: Bench) -> None:
    blank = bytes(ip(4) / TCP(sport=1, dport=84) / Raw(b"\0\0"))
    missing = int.from_bytes(blank[20 + 16 : 20 + 18], "big")
    frame, meta, finished = unfinished(4, "tcp", missing.to_bytes(2, "big"), sport=1)
    assert finished[20 + 16 : 20 + 18] == b"\0\0"
    node.assert_forwarded(frame, node.forward(frame, offload=meta), [finished])


def test_the_valid_flag_changes_nothing(node: Bench) -> None:
    """VIRTIO_NET_HDR_F_DATA_VALID (2): somebody has verified the checksum."""
    frame = bytes(ethernet() / ip(4) / transport("tcp") / Raw(b"hello"))
    node.assert_forwarded(frame, node.forward(frame, offload=offload(flags=2)), [frame[14:]])


# ---- TCP super-frames ----


def tcp_super(
    family: int, length: int, ip_fields: dict[str, Any] | None = None, **fields: Any
) -> tuple[bytes, bytes]:
    payload = bytes(n * 31 + n // 251 & 0xFF for n in range(length))
    fields = {"seq": 1000, "ack": 77, "flags": "PA", **fields}
    frame, _meta, finished = unfinished(family, "tcp", payload, ip_fields, **fields)
    return frame, finished


def gso(family: int, size: int, kind: int | None = None) -> bytes:
    return offload(
        NEEDS_CSUM,
        GSO_TCP[family] if kind is None else kind,
        hdr_len=14 + IP_BYTES[family] + 20,
        gso_size=size,
        csum_start=14 + IP_BYTES[family],
        csum_offset=16,
    )


def check_tcp(
    node: Bench, family: int, size: int, frame: bytes, finished: bytes, *, kind: int | None = None
) -> list[bytes]:
    segments = segment.tcp(finished, size)
    outcome = node.forward(frame, offload=gso(family, size, kind))
    node.assert_forwarded(frame, outcome, segments)
    return segments


@pytest.mark.parametrize(
    ("length", "size", "segments"),
    [
        (2780, 1390, 2),
        (2781, 1390, 3),
        (2779, 1390, 2),
        (1390, 1390, 1),
        (1, 1390, 1),
        (17, 1, 17),
        (1000, 999, 2),
        (60000, 1396, 43),
        (65000, 536, 122),
        (1396, 65535, 1),
    ],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_tcp_super_frames(node: Bench, family: int, length: int, size: int, segments: int) -> None:
    for port in (84, 86):
        frame, finished = tcp_super(family, length, dport=port)
        assert len(check_tcp(node, family, size, frame, finished)) == segments


@pytest.mark.parametrize("flags", ["A", "PA", "FA", "FPA", "CA", "ECPA", "FPCEA", "UA", "RA"])
@pytest.mark.parametrize("family", FAMILIES)
def test_tcp_flags_go_to_the_segments_they_belong_to(node: Bench, family: int, flags: str) -> None:
    frame, finished = tcp_super(family, 3000, flags=flags, urgptr=5)
    first, middle, last = (
        TCP(s[IP_BYTES[family] :]).flags for s in check_tcp(node, family, 1000, frame, finished)
    )
    assert set(str(last)) == set(flags) - {"C"}, "FIN and PSH only on the last"
    assert set(str(middle)) == set(flags) - {"C", "F", "P"}
    assert set(str(first)) == set(flags) - {"F", "P"}, "CWR only on the first"


def test_a_single_segment_keeps_all_flags(node: Bench) -> None:
    frame, finished = tcp_super(4, 100, flags="FPCEA")
    (only,) = check_tcp(node, 4, 1000, frame, finished)
    assert set(str(TCP(only[20:]).flags)) == set("FPCEA")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_ecn_bit_of_the_offload_type(node: Bench, family: int) -> None:
    frame, finished = tcp_super(family, 3000, flags="CPA")
    check_tcp(node, family, 1000, frame, finished, kind=GSO_TCP[family] | GSO_ECN)


def test_numbers_wrap_around(node: Bench) -> None:
    frame, finished = tcp_super(4, 3000, {"id": 0xFFFE}, seq=0xFFFFFC00)
    segments = [IP(s) for s in check_tcp(node, 4, 1000, frame, finished)]
    assert [s.id for s in segments] == [0xFFFE, 0xFFFF, 0]
    assert [s[TCP].seq for s in segments] == [0xFFFFFC00, 0xFFFFFFE8, 0x3D0]


@pytest.mark.parametrize("family", FAMILIES)
def test_options_are_in_every_segment(node: Bench, family: int) -> None:
    options = [("NOP", None), ("NOP", None), ("Timestamp", (123456, 654321))]
    ip_fields = {"options": [IPOption_NOP()] * 12} if family == 4 else {"fl": 0x54321}
    frame, finished = tcp_super(family, 2500, ip_fields, options=options)
    for part in check_tcp(node, family, 1000, frame, finished):
        header = IP(part) if family == 4 else IPv6(part)
        assert header[TCP].options == options
        assert header.ihl == 8 if family == 4 else header.fl == 0x54321


@pytest.mark.parametrize("family", FAMILIES)
def test_dscp_of_a_super_frame(node: Bench, family: int) -> None:
    frame, finished = tcp_super(family, 2500, {"tos" if family == 4 else "tc": 0xBA})
    check_tcp(node, family, 1000, frame, finished)


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_behind_a_super_frame_is_cut(node: Bench, family: int) -> None:
    frame, finished = tcp_super(family, 2500)
    outcome = node.forward(frame + b"\xee" * 99, offload=gso(family, 1000))
    node.assert_forwarded(frame, outcome, segment.tcp(finished, 1000))


@pytest.mark.parametrize("outer", FAMILIES)
@pytest.mark.parametrize("inner", FAMILIES)
def test_segments_and_the_mtu(node: Bench, inner: int, outer: int) -> None:
    """The largest segment decides, and then none is sent: one counter for the one frame."""
    largest = MTU - OVERHEAD[outer] - IP_BYTES[inner] - 20
    fields = {"flags": "DF"} if inner == 4 else {}
    frame, finished = tcp_super(inner, 2 * largest, fields, dport=80 + outer)
    check_tcp(node, inner, largest, frame, finished)
    frame, _finished = tcp_super(inner, 2 * largest + 2, fields, dport=80 + outer)
    outcome = node.forward(frame, offload=gso(inner, largest + 1))
    told = answer.too_big(frame, MTU - OVERHEAD[outer])
    node.assert_answered(outcome, "too_big", told, "too_big_sent")


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_segments_that_may_be_fragmented_are(node: Bench, protocol: str) -> None:
    """IPv4 without DF: segmented first, then each segment is split like a packet of its own."""
    payload = bytes(n * 7 & 0xFF for n in range(4000))
    frame, meta, finished = unfinished(4, protocol, payload, {"id": 77})
    kind = {"tcp": GSO_TCPV4, "udp": GSO_UDP_L4}[protocol]
    meta = meta[:1] + bytes([kind]) + meta[2:4] + (1460).to_bytes(2, "little") + meta[6:]
    segments = getattr(segment, protocol)(finished, 1460)
    parts = [part for whole in segments for part in fragments.split(whole, MTU - OVERHEAD[4])]
    assert len(parts) == 2 * 2 + 1, "the last segment fits"
    outcome = node.forward(frame, offload=meta)
    node.assert_forwarded(frame, outcome, parts, {"packet_split": 2})


def test_a_large_size_is_no_matter_when_the_payload_is_small(node: Bench) -> None:
    frame, finished = tcp_super(4, 1000)
    check_tcp(node, 4, 65535, frame, finished)


# ---- UDP super-frames ----


@pytest.mark.parametrize(
    ("length", "size"),
    [(2400, 1200), (2401, 1200), (2399, 1200), (1200, 1200), (5, 1), (60000, 1350)],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_udp_super_frames(node: Bench, family: int, length: int, size: int) -> None:
    payload = bytes(n * 13 & 0xFF for n in range(length))
    frame, meta, finished = unfinished(family, "udp", payload, {"id": 9} if family == 4 else None)
    meta = meta[:1] + bytes([GSO_UDP_L4]) + meta[2:4] + size.to_bytes(2, "little") + meta[6:]
    node.assert_forwarded(frame, node.forward(frame, offload=meta), segment.udp(finished, size))


def test_udp_over_ipv4_without_a_checksum_stays_so(node: Bench) -> None:
    frame = bytes(ethernet() / ip(4) / UDP(sport=1, dport=84, chksum=0) / Raw(bytes(2500)))
    outcome = node.forward(frame, offload=offload(0, GSO_UDP_L4, gso_size=1000))
    node.assert_forwarded(frame, outcome, segment.udp(frame[14:], 1000, checksum=False))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_udp_segments_checksum_of_0_is_sent_as_ffff(node: Bench, family: int) -> None:
    """Two datagrams of two bytes, of which the first would sum to 0."""
    blank = bytes(ip(family) / UDP(sport=1, dport=84) / Raw(b"\0\0"))
    missing = blank[IP_BYTES[family] + 6 :][:2]
    frame, meta, finished = unfinished(family, "udp", missing + b"xy", sport=1)
    meta = meta[:1] + bytes([GSO_UDP_L4]) + meta[2:4] + b"\x02\0" + meta[6:]
    outcome = node.forward(frame, offload=meta)
    segments = segment.udp(finished, 2)
    assert segments[0][IP_BYTES[family] + 6 :][:2] == b"\xff\xff"
    node.assert_forwarded(frame, outcome, segments)
