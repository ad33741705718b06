"""Every drop reason that can be reached from memory, by name; each moves exactly one counter."""

import os
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from scapy.layers.inet import ICMP, TCP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6ExtHdrFragment
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q
from scapy.packet import Raw

from lbfwd import ring
from lbfwd.forwarding import Forwarding, Member
from tests.packet import bench
from tests.packet.bench import VIP4, Bench, BenchMaker
from tests.packet.crafted import (
    GSO_ECN,
    GSO_NONE,
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP,
    GSO_UDP_L4,
    NEEDS_CSUM,
    frame,
    ip,
    mended,
    offload,
    raw,
)
from tests.packet.memory import published

LENGTH, TP_LEN_AT = 60, 16  # of a frame, in struct tpacket3_hdr
PLAIN = offload()
TCP4 = frame(4, "tcp", payload=bytes(300))
TCP6 = frame(6, "tcp", payload=bytes(300))
UDP4 = frame(4, "udp", payload=bytes(300))
UDP6 = frame(6, "udp", payload=bytes(300))


@dataclass(frozen=True)
class Case:
    reason: str
    what: str
    frame: bytes
    offload: bytes = PLAIN

    def __str__(self) -> str:
        return f"{self.reason}: {self.what}"


def patch(data: bytes, at: int, replacement: bytes) -> bytes:
    assert 0 <= at <= len(data) - len(replacement)
    return data[:at] + replacement + data[at + len(replacement) :]


def ipv4_patch(at: int, replacement: bytes) -> bytes:
    """Change the IPv4 header and make its checksum right again."""
    return mended(patch(TCP4, 14 + at, replacement))


FRAMES = [
    Case("vlan_tagged", "802.1Q", raw(Dot1Q(vlan=5), ip(4), TCP(dport=84))),
    Case("vlan_tagged", "802.1ad", raw(Dot1AD(vlan=5), Dot1Q(vlan=6), ip(4), TCP(dport=84))),
    Case("not_ip", "ARP", raw(ARP())),
    Case("not_ip", "802.3 length", patch(TCP4, 12, b"\x00\x2e")),
    Case("not_ip", "MPLS", patch(TCP4, 12, b"\x88\x47")),
    *[Case("truncated", f"{n} bytes of Ethernet", TCP4[:n]) for n in (0, 1, 13)],
    *[Case("truncated", f"{n} bytes of IPv4", TCP4[: 14 + n]) for n in (0, 1, 19, 20, 299)],
    *[Case("truncated", f"{n} bytes of IPv6", TCP6[: 14 + n]) for n in (0, 1, 39, 40, 299)],
    Case("truncated", "IPv4, one byte missing", TCP4[:-1]),
    Case("truncated", "IPv6, one byte missing", TCP6[:-1]),
    Case("truncated", "IPv4 options beyond the frame", ipv4_patch(0, b"\x4f")[: 14 + 40]),
    *[
        Case("truncated", f"{n} bytes of TCP in IPv{f}", raw(ip(f, **{k: 6}), Raw(bytes(n))))
        for n in (0, 1, 19)
        for f, k in ((4, "proto"), (6, "nh"))
    ],
    *[
        Case("truncated", f"{n} bytes of UDP in IPv{f}", raw(ip(f, **{k: 17}), Raw(bytes(n))))
        for n in (0, 1, 7)
        for f, k in ((4, "proto"), (6, "nh"))
    ],
    Case("truncated", "TCP behind the packet's end, in the padding", ipv4_patch(2, b"\0\x27")),
    *[Case("bad_ip_header", f"version {v}", ipv4_patch(0, bytes([v << 4 | 5]))) for v in (0, 5, 6)],
    *[Case("bad_ip_header", f"version {v}", patch(TCP6, 14, bytes([v << 4]))) for v in (0, 4, 15)],
    *[
        Case("bad_ip_header", f"header of {n} words", ipv4_patch(0, bytes([0x40 | n])))
        for n in (0, 4)
    ],
    Case("bad_ip_header", "total length below the header's", ipv4_patch(2, b"\0\x13")),
    Case("bad_ip_header", "total length 0", ipv4_patch(2, b"\0\0")),
    Case("bad_ip_header", "total length ends in the options", ipv4_patch(0, b"\x4f\0\0\x3b")),
    *[
        Case(
            "bad_ip_checksum",
            f"bit {bit} of byte {at}",
            patch(TCP4, 14 + at, bytes([TCP4[14 + at] ^ bit])),
        )
        for at, bit in ((1, 1), (8, 0x80), (10, 1), (11, 0x80), (12, 4), (19, 1))
    ],
    Case("no_vip", "IPv4", frame(4, "tcp", dst="192.0.2.11")),
    Case("no_vip", "IPv6", frame(6, "tcp", dst="2001:db8::11")),
    Case("no_vip", "the VIP is the source", frame(4, "tcp", src="192.0.2.10", dst="198.51.100.7")),
    Case("no_vip", "a fragment for somebody else", frame(4, "tcp", dst="192.0.2.11", flags="MF")),
    Case("fragment", "an echo request's first", raw(ip(4, flags="MF"), ICMP(), Raw(bytes(64)))),
    Case("fragment", "an echo request's last", raw(ip(4, proto=1, frag=9), Raw(bytes(64)))),
    Case(
        "fragment",
        "an echo request's first, IPv6",
        raw(ip(6), IPv6ExtHdrFragment(m=1), ICMPv6EchoRequest(data=bytes(64))),
    ),
    Case(
        "fragment",
        "an echo request's last, IPv6",
        raw(ip(6), IPv6ExtHdrFragment(offset=9, nh=58), Raw(bytes(64))),
    ),
    Case("unsupported_protocol", "a later fragment", raw(ip(4, proto=47, frag=9), Raw(bytes(64)))),
    Case("bad_ip_header", "a fragment that ends behind 65,535", ipv4_patch(6, b"\x1f\xff")),
    *[
        Case("extension_header", f"next header {n}", raw(ip(6, nh=n), Raw(bytes(64))))
        for n in (51, 135, 139, 140)
    ],
    Case("unsupported_protocol", "ICMP that asks nothing", raw(ip(4), ICMP(type=13))),
    Case(
        "unsupported_protocol", "hop-by-hop's number in IPv4", raw(ip(4, proto=0), Raw(bytes(64)))
    ),
    *[
        Case(
            "unsupported_protocol", f"protocol {n} in IPv{f}", raw(ip(f, **{k: n}), Raw(bytes(64)))
        )
        for n in (47, 50, 59, 132, 136, 255)
        for f, k in ((4, "proto"), (6, "nh"))
    ],
    Case("no_service", "another port", frame(4, "tcp", port=85)),
    Case("no_service", "another port, IPv6", frame(6, "udp", port=85)),
    Case("no_service", "the source port", raw(ip(4), TCP(sport=84, dport=1))),
]

# Metadata that contradict the frame.
OFFLOADS = [
    Case(
        "bad_offload",
        "checksum from the IP header on",
        TCP4,
        offload(NEEDS_CSUM, csum_start=14, csum_offset=10),
    ),
    Case(
        "bad_offload",
        "checksum one byte early",
        TCP4,
        offload(NEEDS_CSUM, csum_start=33, csum_offset=16),
    ),
    Case(
        "bad_offload",
        "checksum one byte late",
        TCP4,
        offload(NEEDS_CSUM, csum_start=35, csum_offset=16),
    ),
    Case("bad_offload", "checksum start 0", UDP6, offload(NEEDS_CSUM, csum_offset=6)),
    Case(
        "bad_offload",
        "checksum start 65535",
        UDP6,
        offload(NEEDS_CSUM, csum_start=65535, csum_offset=6),
    ),
    *[
        Case(
            "bad_offload",
            f"TCP checksum at {n}",
            TCP4,
            offload(NEEDS_CSUM, csum_start=34, csum_offset=n),
        )
        for n in (0, 6, 15, 17, 18, 319, 320, 65534, 65535)
    ],
    *[
        Case(
            "bad_offload",
            f"UDP checksum at {n}",
            UDP6,
            offload(NEEDS_CSUM, csum_start=54, csum_offset=n),
        )
        for n in (0, 4, 7, 16, 307, 308, 65535)
    ],
    *[
        Case(
            "bad_offload",
            f"offload type {kind} for {what}",
            data,
            offload(NEEDS_CSUM, kind, gso_size=100),
        )
        for what, data, right in (
            ("TCPv4", TCP4, GSO_TCPV4),
            ("TCPv6", TCP6, GSO_TCPV6),
            ("UDPv4", UDP4, GSO_UDP_L4),
            ("UDPv6", UDP6, GSO_UDP_L4),
        )
        for kind in (
            GSO_NONE | GSO_ECN,
            GSO_TCPV4,
            2,
            GSO_UDP,
            GSO_TCPV6,
            GSO_UDP_L4,
            6,
            0x7F,
            0xFF,
        )
        if kind != right
    ],
    Case("bad_offload", "segments of 0 bytes, TCP", TCP4, offload(NEEDS_CSUM, GSO_TCPV4)),
    Case("bad_offload", "segments of 0 bytes, UDP", UDP6, offload(NEEDS_CSUM, GSO_UDP_L4)),
    Case(
        "bad_offload",
        "super-frame without payload, TCP",
        frame(4, "tcp", payload=b""),
        offload(NEEDS_CSUM, GSO_TCPV4, gso_size=100),
    ),
    Case(
        "bad_offload",
        "super-frame without payload, UDP",
        frame(4, "udp", payload=b""),
        offload(NEEDS_CSUM, GSO_UDP_L4, gso_size=100),
    ),
    *[
        Case(
            "bad_offload",
            f"TCP header of {words} words before {len(payload)} bytes",
            raw(ip(4), TCP(dport=84, dataofs=words), Raw(payload)),
            offload(NEEDS_CSUM, GSO_TCPV4, gso_size=10),
        )
        for words, payload in ((0, bytes(40)), (4, bytes(40)), (6, bytes(4)), (15, bytes(40)))
    ],
]

ALL = FRAMES + OFFLOADS


@pytest.fixture
def node(make_bench: BenchMaker) -> Bench:
    return make_bench(bench.all_combinations())


@pytest.mark.parametrize("case", ALL, ids=str)
def test_a_frame_that_is_not_forwarded(node: Bench, case: Case) -> None:
    node.assert_dropped(node.forward(case.frame, offload=case.offload), case.reason)


# ---- reasons that lie in the state, not in the frame ----


def state_of(*members: Member) -> Forwarding:
    return bench.forwarding([bench.service(VIP4, "tcp", 84, "p")], [bench.pool("p", members)])


@pytest.mark.parametrize(
    "members",
    [
        [bench.member(4, 11, weight=0)],
        [bench.member(4, 11, weight=0), bench.member(4, 12, paths=[])],
        [bench.member(4, 11, paths=[])],
    ],
    ids=["weight 0", "weight 0 and no path", "no path"],
)
def test_no_backend(make_bench: BenchMaker, members: list[Member]) -> None:
    node = make_bench(state_of(*members))
    node.assert_dropped(node.forward(TCP4), "no_backend")


def test_no_next_hop(make_bench: BenchMaker) -> None:
    """``Tables`` gives a backend without a path no slot, so the state is made by hand."""
    node = make_bench(state_of(bench.member(4, 11)))
    with published(node.tables) as state:
        state.backends[0].path_count = 0
    node.assert_dropped(node.forward(TCP4), "no_next_hop")


def test_no_vip_before_anything_is_published(make_bench: BenchMaker) -> None:
    node = make_bench(bench.forwarding([], []))
    node.assert_dropped(node.forward(TCP4), "no_vip")


def test_tx_not_ready_without_a_ring(make_bench: BenchMaker) -> None:
    node = make_bench(state_of(bench.member(4, 11)))
    node.worker.remove_tx(0)
    node.assert_dropped(node.forward(TCP4), "tx_not_ready")
    super_frame = node.forward(TCP4, offload=offload(NEEDS_CSUM, GSO_TCPV4, gso_size=100))
    node.assert_dropped(super_frame, "tx_not_ready", 3)


def test_tx_not_ready_until_the_kernels_place_is_known(make_bench: BenchMaker) -> None:
    """A used ring whose send() fails, as with a link that is down when the worker comes."""
    node = make_bench(state_of(bench.member(4, 11)))
    shape = ring.tx_geometry(16, bench.MTU)
    no_socket = os.memfd_create("lbfwd-test-ring")
    os.ftruncate(no_socket, shape.block_bytes * shape.blocks)
    os.pwrite(no_socket, LENGTH.to_bytes(4, "little"), TP_LEN_AT)  # somebody has filled a slot
    node.worker.remove_tx(0)
    node.worker.add_tx(0, no_socket, shape)
    node.assert_dropped(node.forward(TCP4), "tx_not_ready")
    node.worker.remove_tx(0)
    os.close(no_socket)


def test_tx_ring_full(make_bench: BenchMaker) -> None:
    node = make_bench(state_of(bench.member(4, 11)), tx_slots=4)
    outcome = node.forward(*[TCP4] * 7)
    assert outcome.drops == {"tx_ring_full": 3}
    assert outcome.frames == [node.wrapped(TCP4)[1]] * 4
    assert (outcome.forwarded, outcome.seen) == (4, 7)
    node.assert_forwarded(TCP4, node.forward(TCP4), [TCP4[14:]])


def test_a_super_frame_that_finds_room_for_a_part(make_bench: BenchMaker) -> None:
    """Each segment is a packet: those that fit leave, the others are counted one by one."""
    node = make_bench(state_of(bench.member(4, 11)), tx_slots=4)
    outcome = node.forward(TCP4, offload=offload(NEEDS_CSUM, GSO_TCPV4, gso_size=50))
    assert outcome.drops == {"tx_ring_full": 2}
    assert (outcome.forwarded, len(outcome.frames), outcome.seen) == (4, 4, 6)


def test_tx_link_down_when_pending_frames_are_taken_back(make_bench: BenchMaker) -> None:
    node = make_bench(state_of(bench.member(4, 11)))
    before = node.tables.totals()
    node.worker.forward(TCP4)
    node.worker.forward(TCP4)
    node.worker.remove_tx(0)
    node.assert_dropped(node.outcome(before, 0), "tx_link_down", 2)


def test_worker_died_counts_what_the_last_one_held(make_bench: BenchMaker) -> None:
    node = make_bench(state_of(bench.member(4, 11)))
    node.forward(TCP4)
    before = node.tables.totals()
    node.worker.forward(TCP4)  # in a TX ring, not accepted, not counted
    node.worker.close()
    node.workers = [ring.Worker(0, *node.tables.files())]
    node.worker.recover()
    node.worker.recover()  # and it is counted once
    node.assert_dropped(node.outcome(before, 1), "worker_died")


# Reached by packets in a receive ring (test_receive.py), or only with a kernel (topology tests).
ELSEWHERE = {"cut_by_ring", "other_host", "tx_refused"}
# What is answered, waits, or belongs to a flow: rooms of their own.
OTHER_ROOMS = {
    "too_big",  # test_too_big.py
    "rejected",  # test_reject.py
    "icmp_unmatched",  # test_icmp_errors.py
    "fragment_unmatched",  # test_fragments.py
    "fragment_no_room",
    "fragment_to_peer",  # test_peers.py
    "peer_unknown",
    "peer_malformed",
    "peer_not_fragment",
    "echo_refused",  # test_echo.py
    "echo_answered",
    "rate_limited",
    "extension_header",  # test_extensions.py, and here
}
# What the state or the TX ring decides: the tests above.
BY_STATE: dict[str, Callable[..., None]] = {
    "no_backend": test_no_backend,
    "no_next_hop": test_no_next_hop,
    "tx_not_ready": test_tx_not_ready_without_a_ring,
    "tx_ring_full": test_tx_ring_full,
    "tx_link_down": test_tx_link_down_when_pending_frames_are_taken_back,
    "worker_died": test_worker_died_counts_what_the_last_one_held,
}


def test_every_reason_has_a_test() -> None:
    here = {case.reason for case in ALL} | set(BY_STATE)
    assert here | OTHER_ROOMS | ELSEWHERE == set(ring.DROP_REASONS[1:])
