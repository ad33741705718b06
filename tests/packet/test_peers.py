"""Fragments across nodes: to the one that their addresses name, one hop. Paper section 4.3."""

import dataclasses
from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from lbfwd._ringlib import lib
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import IPv6ExtHdrFragment
from scapy.layers.l2 import GRE, Ether
from scapy.packet import Raw

from lbfwd import ring
from lbfwd.encap import PEER_MARK
from lbfwd.forwarding import Forwarding
from lbfwd.peers import TABLE_SIZE
from tests.oracle import encap, fragments, maglev, siphash
from tests.packet import bench
from tests.packet.bench import Bench, BenchMaker
from tests.packet.crafted import NEEDS_CSUM, ethernet, frame, ip, offload, raw
from tests.packet.fleet import HERE, NAMES, from_peer, peers
from tests.packet.test_fragments import FAMILIES, HELD_MS, check_all_sent, datagram, ethertype


def state(**options: object) -> Forwarding:
    return dataclasses.replace(bench.all_combinations(), peers=peers(**options))  # type: ignore[arg-type]


def named(data: bytes, live: tuple[str, ...] = NAMES) -> str:
    """Which node a fragment's addresses name, by the oracles."""
    packet = Ether(data).payload
    protocol = packet.proto if isinstance(packet, IP) else 0
    key = siphash.flow_key(ip_address(packet.src), ip_address(packet.dst), 0, 0, protocol)
    hashed = siphash.flow_hash(key, bench.SECRET)
    name = _table(live)[siphash.bucket(hashed, TABLE_SIZE)]
    assert name
    return name


_tables: dict[tuple[str, ...], list[str | None]] = {}


def _table(live: tuple[str, ...]) -> list[str | None]:
    if live not in _tables:
        _tables[live] = maglev.table(dict.fromkeys(live, 1), TABLE_SIZE)
    return _tables[live]


def datagrams(family: int, **options: object) -> Iterator[list[bytes]]:
    """Datagrams of many clients."""
    for n in range(1, 60):
        source = f"198.51.100.{n}" if family == 4 else f"2001:db8:1::{n:x}"
        yield datagram(family, n, src=source, **options)  # type: ignore[arg-type]


def one_for(name: str, family: int, **options: object) -> list[bytes]:
    """A datagram whose fragments are for this node."""
    return next(d for d in datagrams(family, **options) if named(d[0]) == name)


def to_peer(outer: int, name: str, inner: bytes) -> bytes:
    """The frame that hands an inner packet over."""
    host = 201 + NAMES.index(name)
    hop = bench.path(outer, host)
    plain = encap.wrapped(inner, hop.source, hop.destination, hop.src_mac, hop.dst_mac)
    return marked(plain)


def marked(data: bytes) -> bytes:
    """The frame with recursion control 1 in its GRE header (RFC 1701), as Scapy writes it."""
    packet = Ether(data)
    packet[GRE].recursion_control = 1
    return bytes(packet)


@pytest.fixture
def node(make_bench: BenchMaker) -> Bench:
    return make_bench(state(), tx_slots=1024)


def test_the_mark_is_the_one_of_the_contract() -> None:
    assert lib.LBFWD_PEER_MARK == PEER_MARK
    assert bytes(GRE(recursion_control=1, proto=0))[:2] == PEER_MARK.to_bytes(2, "big")


@pytest.mark.parametrize("outer", FAMILIES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_fragment_goes_to_the_node_that_it_names(
    make_bench: BenchMaker, family: int, outer: int
) -> None:
    """The first too; the node's own stay, and are forwarded as ever."""
    node = make_bench(state(outer=outer), tx_slots=1024)
    seen = set()
    for frames in datagrams(family):
        name = named(frames[0])
        seen.add(name)
        outcome = node.forward(*frames)
        if name == HERE:
            check_all_sent(node, outcome, frames[0], frames)
            continue
        inner = [encap.inner_packet(data) for data in frames]
        assert outcome.sent == {bench.TX[outer]: [to_peer(outer, name, data) for data in inner]}
        assert outcome.drops == {"fragment_to_peer": len(frames)}
        assert (outcome.services, outcome.backends, outcome.events) == ({}, {}, {})
        assert outcome.seen == len(frames)
    assert seen == set(NAMES)


def test_whole_packets_stay(node: Bench) -> None:
    for family in FAMILIES:
        for n in range(20):
            data = raw(ip(family), UDP(sport=n + 1, dport=84), Raw(b"whole"))
            node.assert_forwarded(data, node.forward(data), [encap.inner_packet(data)])


@pytest.mark.parametrize("live", [("lb1", HERE), (HERE,), ()], ids=str)
def test_only_live_nodes_are_given_any(make_bench: BenchMaker, live: tuple[str, ...]) -> None:
    """With none alive, this one among them, fragments stay."""
    node = make_bench(state(live=live), tx_slots=1024)
    for frames in datagrams(4):
        outcome = node.forward(*frames)
        if not live or named(frames[0], live) == HERE:
            check_all_sent(node, outcome, frames[0], frames)
        else:
            inner = [encap.inner_packet(data) for data in frames]
            assert outcome.frames == [to_peer(4, "lb1", data) for data in inner]


def test_without_a_way_to_the_node_they_stay(make_bench: BenchMaker) -> None:
    node = make_bench(state(paths=False))
    frames = one_for("lb1", 4)
    check_all_sent(node, node.forward(*frames), frames[0], frames)


@pytest.mark.parametrize("outer", FAMILIES)
@pytest.mark.parametrize("family", FAMILIES)
def test_what_another_node_hands_over_is_forwarded(node: Bench, family: int, outer: int) -> None:
    """Exactly as if it had come by itself, whichever node it names: it goes one hop at most."""
    for name in NAMES:
        frames = one_for(name, family)
        handed = [from_peer(encap.inner_packet(data), outer) for data in frames]
        check_all_sent(node, node.forward(*handed), frames[0], frames)


def test_ways_may_mix_and_order_means_nothing(node: Bench) -> None:
    """Also for those that wait, which are not handed on when their first comes."""
    frames = one_for("lb3", 4)
    last, middle, first = (from_peer(encap.inner_packet(f)) for f in reversed(frames))
    assert node.forward(last, middle).events == {"fragment_held": 2}
    outcome = node.forward(first)
    check_all_sent(node, outcome, frames[0], [frames[0], frames[2], frames[1]])
    own = one_for(HERE, 6)
    node.forward(own[0])
    outcome = node.forward(from_peer(encap.inner_packet(own[1]), 6), own[2])
    check_all_sent(node, outcome, own[0], own[1:])


def test_one_that_waits_in_vain_is_counted(node: Bench) -> None:
    node.forward(from_peer(encap.inner_packet(datagram(4)[1])))
    whole = frame(4, "udp")
    outcome = node.forward(whole, now_ms=bench.NOW_MS + HELD_MS + 1)
    assert outcome.drops == {"fragment_unmatched": 1}


FIRST = encap.inner_packet(datagram(4)[0])
SHORT = {
    4: bytes(ip(4, flags="MF") / UDP(dport=84) / Raw(bytes(8))),
    6: bytes(ip(6) / IPv6ExtHdrFragment(nh=17, m=1) / UDP(dport=84) / Raw(bytes(8))),
}
GOOD = from_peer(FIRST)
STRANGER = "10.0.0.77"


@pytest.mark.parametrize(
    ("reason", "data"),
    [
        ("peer_unknown", from_peer(FIRST, src=STRANGER)),
        ("peer_unknown", from_peer(FIRST, 6, src="fd00::77")),
        ("peer_unknown", from_peer(FIRST, src=str(bench.NODE[4]))),
        ("no_vip", from_peer(FIRST, dst=STRANGER)),
        ("no_vip", from_peer(FIRST, proto=48)),
        ("peer_malformed", GOOD[:34] + b"\0\0" + GOOD[36:]),
        ("peer_malformed", GOOD[:34] + b"\x03\0" + GOOD[36:]),
        ("peer_malformed", GOOD[:34] + b"\x81\0" + GOOD[36:]),
        ("peer_malformed", GOOD[:34] + b"\x01\x01" + GOOD[36:]),
        ("peer_malformed", GOOD[:36] + b"\x65\x58" + GOOD[38:]),
        ("bad_ip_header", GOOD[:36] + b"\x86\xdd" + GOOD[38:]),
        ("bad_ip_checksum", GOOD[:48] + b"\xff" + GOOD[49:]),
        ("bad_ip_checksum", GOOD[:24] + b"\0\0" + GOOD[26:]),
        ("peer_malformed", from_peer(FIRST, flags="MF")),
        ("peer_malformed", from_peer(FIRST, options=[b"\x01\x01\x01\x01"])),
        ("peer_not_fragment", from_peer(bytes(ip(4) / UDP(dport=84)))),
        ("peer_not_fragment", from_peer(bytes(ip(6) / UDP(dport=84)), 6)),
        ("peer_not_fragment", from_peer(bytes(ip(4) / ICMP() / Raw(b"ping")))),
        ("fragment", from_peer(bytes(ip(4, frag=3, proto=1) / Raw(b"ping")))),
        ("no_vip", from_peer(bytes(ip(4, dst=STRANGER, flags="MF") / UDP(dport=84)))),
        ("no_service", from_peer(bytes(ip(4, flags="MF") / UDP(dport=85)))),
        ("no_vip", from_peer(GOOD[14:])),
    ],
)  # fmt: skip
def test_what_is_not_taken(node: Bench, reason: str, data: bytes) -> None:
    node.assert_dropped(node.forward(data), reason)


def test_without_a_fleet_nothing_is_unwrapped(make_bench: BenchMaker) -> None:
    node = make_bench(bench.all_combinations())
    node.assert_dropped(node.forward(GOOD), "no_vip")


@pytest.mark.parametrize("outer", FAMILIES)
@pytest.mark.parametrize("family", FAMILIES)
def test_cut_anywhere(node: Bench, family: int, outer: int) -> None:
    """The frame, or the inner packet in a whole outer one: dropped by name, nothing leaves."""
    inner = SHORT[family]
    whole = from_peer(inner, outer)
    for length in range(14, len(whole)):
        node.assert_dropped(node.forward(whole[:length]), "truncated")
    for length in range(len(inner)):
        outcome = node.forward(from_peer(inner[:length] or b"\x45", outer))
        assert (outcome.frames, outcome.seen) == ([], 1)
        assert set(outcome.drops) <= {"truncated", "bad_ip_header"}
    padded = node.forward(whole + bytes(18))
    assert [encap.unwrapped(sent) for sent in padded.frames] == [inner]


def test_work_left_for_hardware_is_refused(node: Bench) -> None:
    meta = offload(NEEDS_CSUM, csum_start=58, csum_offset=6)
    node.assert_dropped(node.forward(GOOD, offload=meta), "bad_offload")


def test_too_big_for_the_way_to_the_node(make_bench: BenchMaker) -> None:
    """As for backends: IPv4 is cut, IPv6 senders are told, once a datagram."""
    node = make_bench(state(mtu=1000))
    frames = one_for("lb1", 4)
    outcome = node.forward(*frames)
    parts = [part for f in frames for part in fragments.split(encap.inner_packet(f), 976)]
    assert outcome.frames == [to_peer(4, "lb1", part) for part in parts]
    assert outcome.drops == {"fragment_to_peer": len(parts)}
    assert outcome.events["packet_split"] > 0
    first, later, *_ = one_for("lb1", 6)
    outcome = node.forward(first)
    assert outcome.events == {"too_big_sent": 1}
    assert outcome.drops == {"too_big": 1}
    node.assert_dropped(node.forward(later), "too_big")


@pytest.mark.parametrize("what", ["too big", "no backend"])
def test_the_sender_of_what_was_handed_over_is_told_nothing(
    make_bench: BenchMaker, what: str
) -> None:
    """The way back to the router is not known: Ethernet addresses are the other node's."""
    hop = bench.path(4, 11, mtu=1300 if what == "too big" else 1500)
    members = [bench.member(4, 11, weight=int(what == "too big"), paths=[hop])]
    one = bench.one_service(members, vip=bench.VIP6, empty="reject")
    node = make_bench(dataclasses.replace(one, peers=peers()))
    first = datagram(6)[0]
    if what == "too big":
        whole = bytes(ip(6) / UDP(dport=84) / Raw(bytes(2000)))
        large = fragments.fragment6(whole, [1400, 800], 5)[0]
        first = bytes(ethernet())[:12] + ethertype(6) + large
    outcome = node.forward(from_peer(encap.inner_packet(first), 4))
    node.assert_dropped(outcome, "too_big" if what == "too big" else "no_backend")


def test_a_frame_that_the_ring_has_no_room_for(make_bench: BenchMaker) -> None:
    node = make_bench(state(), tx_slots=1)
    frames = one_for("lb1", 4)
    outcome = node.forward(*frames)
    slots = len(outcome.frames)
    assert 0 < slots < len(frames)
    assert outcome.drops == {"fragment_to_peer": slots, "tx_ring_full": len(frames) - slots}


def test_a_successor_counts_what_was_in_hand(node: Bench) -> None:
    before, seen = node.tables.totals(), node.tables.slot(0).seen
    node.worker.forward(one_for("lb1", 4)[0], now_ms=bench.NOW_MS)
    node.worker.close()
    node.workers = [ring.Worker(0, *node.tables.files())]
    node.worker.recover()
    node.assert_dropped(node.outcome(before, seen), "worker_died")


def test_a_replaced_worker_does_not_know_which_first_fragments_came(node: Bench) -> None:
    """What comes behind them is lost, by name, and so is what waited: docs/fleet.md."""
    first, *later = (from_peer(encap.inner_packet(data)) for data in one_for(HERE, 4))
    assert len(node.forward(first).frames) == 1
    before, seen = node.tables.totals(), node.tables.slot(0).seen
    node.worker.forward(from_peer(encap.inner_packet(datagram(6)[1])), now_ms=bench.NOW_MS)
    node.worker.close()
    node.workers = [ring.Worker(0, *node.tables.files())]
    node.worker.recover()
    node.assert_dropped(node.outcome(before, seen), "worker_died")
    assert node.forward(*later).events == {"fragment_held": len(later)}
    tick = from_peer(FIRST, dst=STRANGER)
    outcome = node.forward(tick, now_ms=bench.NOW_MS + HELD_MS + 1)
    assert outcome.drops == {"no_vip": 1, "fragment_unmatched": len(later)}


@pytest.mark.parametrize("outer", FAMILIES)
def test_congestion_on_the_way_between_nodes_is_told_the_backend(node: Bench, outer: int) -> None:
    """RFC 6040 section 4.2: by the next outer header, which its own end of the tunnel reads."""
    inner = bytes(ip(4, flags="MF", tos=2) / UDP(dport=84) / Raw(bytes(8)))  # ECT(0)
    handed = from_peer(inner, outer, **({"tos": 3} if outer == 4 else {"tc": 3}))
    (sent,) = node.forward(handed).frames
    around = Ether(sent).payload
    assert (around.tos if isinstance(around, IP) else around.tc) & 3 == 3
