"""Whole packets: what leaves is byte for byte what Scapy builds, to the oracle's backend."""

import random
from collections import Counter
from ipaddress import ip_address

import pytest
from scapy.layers.inet import IP, TCP, UDP, IPOption_NOP, IPOption_Router_Alert
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw

from lbfwd.tables import Count
from tests.oracle import answer, encap
from tests.packet import bench
from tests.packet.bench import VIP4, VIP6, Bench, BenchMaker
from tests.packet.crafted import ethernet, frame, ip, transport

FAMILIES = (4, 6)
OVERHEAD = {4: 24, 6: 44}  # outer IP and GRE


@pytest.fixture
def node(make_bench: BenchMaker) -> Bench:
    return make_bench(bench.all_combinations())


def check(node: Bench, data: bytes) -> None:
    node.assert_forwarded(data, node.forward(data), [encap.inner_packet(data)])


@pytest.mark.parametrize("outer", FAMILIES)
@pytest.mark.parametrize("inner", FAMILIES)
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_all_four_combinations(node: Bench, inner: int, outer: int, protocol: str) -> None:
    check(node, frame(inner, protocol, port=80 + outer))


@pytest.mark.parametrize("outer", FAMILIES)
@pytest.mark.parametrize("inner", FAMILIES)
def test_random_flows_leave_for_the_oracles_backend(node: Bench, inner: int, outer: int) -> None:
    rng = random.Random(f"{inner}{outer}")
    chosen: Counter[str] = Counter()
    for _ in range(125):
        source = rng.randbytes(4 if inner == 4 else 16)
        data = frame(
            inner,
            rng.choice(["tcp", "udp"]),
            payload=rng.randbytes(rng.randrange(60)),
            port=80 + outer,
            src=str(ip_address(source)),
        )
        check(node, data)
        chosen[node.choose(data)[1].name] += 1
    assert len(chosen) == 7, "every backend should have been tried"


@pytest.mark.parametrize("outer", FAMILIES)
@pytest.mark.parametrize("tos", [0, 1, 2, 3, 0x28, 0xB8, 0xBB, 0xFC, 0xFF])
def test_dscp_and_ecn_are_copied(node: Bench, outer: int, tos: int) -> None:
    for header in (ip(4, tos=tos), ip(6, tc=tos, fl=0xABCDE)):
        check(node, bytes(ethernet() / header / TCP(sport=1, dport=80 + outer)))


@pytest.mark.parametrize("length", range(8))
@pytest.mark.parametrize("family", FAMILIES)
def test_odd_lengths_and_empty_payloads(node: Bench, family: int, length: int) -> None:
    for protocol in ("tcp", "udp"):
        check(node, frame(family, protocol, payload=bytes(range(length))))


@pytest.mark.parametrize("padding", [1, 6, 46, 500])
@pytest.mark.parametrize("family", FAMILIES)
def test_padding_behind_the_ip_packet_is_cut(node: Bench, family: int, padding: int) -> None:
    data = frame(family, "tcp", payload=b"")
    outcome = node.forward(data + b"\xee" * padding)
    node.assert_forwarded(data, outcome, [data[14:]])


@pytest.mark.parametrize("words", range(1, 11))
def test_ipv4_options_are_kept(node: Bench, words: int) -> None:
    options = [IPOption_Router_Alert()] + [IPOption_NOP()] * (4 * (words - 1))
    check(node, frame(4, "tcp", options=options))


def test_the_inner_packet_is_untouched(node: Bench) -> None:
    """TTL, identification, DF, hop limit, flow label, TCP options: whatever the client sent."""
    segment = TCP(
        sport=1, dport=84, flags="S", seq=7, options=[("MSS", 1460), ("WScale", 7), ("SAckOK", b"")]
    )
    for header in (ip(4, ttl=1, id=4711, flags="DF"), ip(6, hlim=1, fl=0x12345)):
        check(node, bytes(ethernet() / header / segment))


def test_a_wrong_transport_checksum_is_the_backends_business(node: Bench) -> None:
    """lbfwd changes no inner byte, so end-to-end checksums go on to protect end to end."""
    check(node, bytes(ethernet() / ip(4) / transport("tcp", chksum=0xDEAD) / Raw(b"x")))
    check(node, bytes(ethernet() / ip(4) / transport("udp", chksum=0) / Raw(b"no checksum")))


def test_every_flag_combination_of_tcp_is_forwarded(node: Bench) -> None:
    for flags in ("S", "SA", "A", "FA", "R", "PA", "SEC", "FPU", ""):
        check(node, bytes(ethernet() / ip(4) / TCP(sport=9, dport=84, flags=flags)))


@pytest.mark.parametrize("outer", FAMILIES)
@pytest.mark.parametrize("inner", FAMILIES)
def test_the_exact_mtu_boundary(node: Bench, inner: int, outer: int) -> None:
    largest = bench.MTU - OVERHEAD[outer]
    headers = (20 if inner == 4 else 40) + 8
    fits = frame(inner, "udp", payload=bytes(largest - headers), port=80 + outer)
    assert len(node.wrapped(fits)[1]) == 14 + bench.MTU
    check(node, fits)  # one byte more: test_too_big.py


def test_each_path_has_its_own_mtu(make_bench: BenchMaker) -> None:
    members = [bench.member(4, n, paths=[bench.path(4, n, mtu=1200 + n)]) for n in (11, 12, 13)]
    node = make_bench(
        bench.forwarding([bench.service(VIP4, "udp", 84, "p")], [bench.pool("p", members)])
    )
    tried = set()
    for port in range(60):
        head = ethernet() / ip(4, flags="DF") / UDP(sport=1000 + port, dport=84)
        hop = node.choose(bytes(head))[2]
        room = hop.mtu - OVERHEAD[4] - 28
        check(node, bytes(head / Raw(bytes(room))))
        over = bytes(head / Raw(bytes(room + 1)))
        told = answer.too_big(over, hop.mtu - OVERHEAD[4])
        node.assert_answered(node.forward(over), "too_big", told, "too_big_sent")
        tried.add(hop.mtu)
    assert tried == {1211, 1212, 1213}


def test_an_mtu_below_the_overhead_is_no_way_out(make_bench: BenchMaker) -> None:
    members = [bench.member(6, 11, paths=[bench.path(6, 11, mtu=43)])]
    node = make_bench(
        bench.forwarding([bench.service(VIP4, "udp", 84, "p")], [bench.pool("p", members)])
    )
    data = frame(4, "udp", payload=b"")
    told = answer.too_big(data, 68)  # no IPv4 link has less: RFC 791
    node.assert_answered(node.forward(data), "too_big", told, "too_big_sent")


# ---- services ----


def two_services(make_bench: BenchMaker) -> Bench:
    """Port 80 has a pool of its own, every other port another."""
    return make_bench(
        bench.forwarding(
            [
                bench.service(VIP4, "tcp", 80, "exact"),
                bench.service(VIP4, "tcp", 0, "any"),
                bench.service(VIP6, "udp", 53, "exact"),
            ],
            [
                bench.pool("exact", [bench.member(4, n) for n in (11, 12)]),
                bench.pool("any", [bench.member(4, n) for n in (21, 22)]),
            ],
        )
    )


def test_the_exact_port_goes_before_every_port(make_bench: BenchMaker) -> None:
    node = two_services(make_bench)
    for port in (80, 1, 79, 81, 443, 65535, 0):
        data = frame(4, "tcp", port=port)
        check(node, data)
        assert node.choose(data)[0].pool == ("exact" if port == 80 else "any")


def test_services_are_told_apart_by_vip_protocol_and_port(make_bench: BenchMaker) -> None:
    node = two_services(make_bench)
    check(node, frame(6, "udp", port=53))
    for data in (frame(6, "tcp", port=53), frame(6, "udp", port=54), frame(4, "udp", port=80)):
        node.assert_dropped(node.forward(data), "no_service")


def test_many_vips_and_services_are_all_found(make_bench: BenchMaker) -> None:
    """The probe tables with collisions in them."""
    vips = [ip_address(0xC0000200 + n) for n in range(120)]
    vips += [ip_address((0x20010DB8 << 96) + n) for n in range(120)]
    services = [
        bench.service(vip, protocol, port, f"p{n % 5}")
        for n, vip in enumerate(vips)
        for protocol, port in (("tcp", 80), ("tcp", 443), ("udp", 0))
    ]
    pools = [bench.pool(f"p{n}", [bench.member(4, 11 + n)], size=7) for n in range(5)]
    node = make_bench(bench.forwarding(services, pools), tx_slots=1024)
    frames = [
        frame(one.vip.version, one.protocol, port=one.port or 4242, dst=str(one.vip))
        for one in services
    ]
    outcome = node.forward(*frames)
    assert outcome.frames == [node.wrapped(data)[1] for data in frames]
    assert outcome.services == {
        one.name: Count(1, len(data) - 14, 1) for one, data in zip(services, frames, strict=True)
    }
    strangers = [frame(4, "tcp", dst=f"192.0.2.{n}") for n in range(120, 256)]
    node.assert_dropped(node.forward(*strangers), "no_vip", len(strangers))


def test_an_ipv6_vip_that_begins_like_an_ipv4_one_is_another(make_bench: BenchMaker) -> None:
    vip6 = ip_address(VIP4.packed + bytes(12))
    node = make_bench(
        bench.forwarding(
            [bench.service(VIP4, "tcp", 84, "p")], [bench.pool("p", [bench.member(4, 11)])]
        )
    )
    check(node, frame(4, "tcp"))
    node.assert_dropped(node.forward(frame(6, "tcp", dst=str(vip6))), "no_vip")


# ---- affinity and several paths ----


def test_source_affinity_keeps_a_client_on_one_backend(make_bench: BenchMaker) -> None:
    members = [bench.member(4, n) for n in range(11, 18)]
    node = make_bench(
        bench.forwarding(
            [
                bench.service(vip, protocol, 0, "p", affinity="source")
                for vip in (VIP4, VIP6)
                for protocol in ("tcp", "udp")
            ],
            [bench.pool("p", members)],
        )
    )
    for family in FAMILIES:
        for host in range(20):
            source = f"198.51.100.{host}" if family == 4 else f"2001:db8:2::{host}"
            seen = set()
            for port in range(1, 4):
                for protocol in ("tcp", "udp"):
                    head = ethernet() / ip(family, src=source)
                    data = bytes(head / transport(protocol, sport=port, dport=80 + port))
                    check(node, data)
                    seen.add(node.choose(data)[1].name)
            assert len(seen) == 1


def test_several_paths_of_one_backend(make_bench: BenchMaker) -> None:
    """A flow always takes the same; all are used, in about equal parts."""
    hops = [bench.path(4, 11, tx=hop, hop=hop) for hop in range(3)]
    node = make_bench(
        bench.forwarding(
            [bench.service(VIP4, "udp", 84, "p")],
            [bench.pool("p", [bench.member(4, 11, paths=hops)])],
        )
    )
    taken: Counter[int] = Counter()
    for port in range(300):
        data = bytes(ethernet() / ip(4) / UDP(sport=1000 + port, dport=84))
        once, again = node.forward(data), node.forward(data)
        node.assert_forwarded(data, once, [data[14:]])
        assert once.sent == again.sent
        taken.update(list(once.sent))
    assert set(taken) == {0, 1, 2}
    assert min(taken.values()) > 60, "of 300 flows, 100 each are expected"


def test_a_backend_without_a_path_gets_no_flow(make_bench: BenchMaker) -> None:
    members = [bench.member(4, 11), bench.member(4, 12, paths=[]), bench.member(4, 13, weight=0)]
    node = make_bench(
        bench.forwarding([bench.service(VIP4, "udp", 84, "p")], [bench.pool("p", members)])
    )
    for port in range(100):
        data = bytes(ethernet() / ip(4) / UDP(sport=1000 + port, dport=84))
        outcome = node.forward(data)
        node.assert_forwarded(data, outcome, [data[14:]])
        assert set(outcome.backends) == {("p", "b11")}


def test_packets_keep_their_order(node: Bench) -> None:
    frames = [frame(4, "tcp", payload=bytes([n])) for n in range(40)]
    outcome = node.forward(*frames)
    assert outcome.frames == [node.wrapped(data)[1] for data in frames]
    assert outcome.forwarded == outcome.seen == 40


def test_what_leaves_dissects_to_what_came(node: Bench) -> None:
    """No field is only right by our own tools."""
    data = frame(4, "tcp", port=86)
    (sent,) = node.forward(data).frames
    dissected = IPv6(sent[14:])
    assert (dissected.nh, dissected.plen) == (47, 4 + len(data) - 14)
    assert bytes(dissected[IP]) == data[14:]
