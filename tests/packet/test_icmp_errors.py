"""An ICMP error about a packet that a VIP sent goes to the backend of that flow. RFC 792, 4443."""

from ipaddress import ip_address

import pytest
from scapy.layers.inet import ICMP, IP, TCP, IPOption_NOP
from scapy.layers.inet6 import (
    ICMPv6ND_NS,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)
from scapy.packet import Raw

from tests.oracle import encap
from tests.packet import bench, quoted
from tests.packet.bench import VIP4, VIP6, Bench, BenchMaker, Outcome
from tests.packet.crafted import CLIENT, VIP, ip, offload, raw, transport

FAMILIES = (4, 6)
IP_BYTES = {4: 20, 6: 40}


@pytest.fixture
def node(make_bench: BenchMaker) -> Bench:
    return make_bench(bench.all_combinations())


def client_packet(family: int, protocol: str = "udp", port: int = 84, sport: int = 40000) -> bytes:
    return raw(ip(family), transport(protocol, dport=port, sport=sport), Raw(b"x"))


def check(node: Bench, data: bytes, outcome: Outcome, flow: bytes) -> None:
    """The error left, untouched, for the backend and over the next hop of the flow."""
    tx, sent = node.wrapped(flow, data[14:])
    assert outcome.sent == {tx: [sent]}
    service, member, _hop = node.choose(flow)
    assert outcome.drops == outcome.events == {}
    assert list(outcome.services) == [service.name]
    assert list(outcome.backends) == [(service.pool, member.name)]


@pytest.mark.parametrize("outer", FAMILIES)
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize(("family", "name"), quoted.EVERY)
def test_every_kind_of_error(
    node: Bench, family: int, name: str, protocol: str, outer: int
) -> None:
    for sport in range(40000, 40020):
        flow = client_packet(family, protocol, 80 + outer, sport)
        data = quoted.about(family, protocol, 80 + outer, sport, name)
        check(node, data, node.forward(data), flow)


@pytest.mark.parametrize("quoted_bytes", [8, 9, 20, 64, 500])
@pytest.mark.parametrize("family", FAMILIES)
def test_however_much_is_quoted(node: Bench, family: int, quoted_bytes: int) -> None:
    packet = bytes(quoted.answer_of_the_vip(family, "tcp", 84, 40000) / Raw(bytes(600)))
    data = quoted.error(family, packet[: IP_BYTES[family] + quoted_bytes])
    check(node, data, node.forward(data), client_packet(family, "tcp"))


@pytest.mark.parametrize("words", range(1, 11))
def test_a_quoted_packet_with_ipv4_options(node: Bench, words: int) -> None:
    packet = bytes(
        quoted.answer_of_the_vip(4, "udp", 84, 40000, options=[IPOption_NOP()] * 4 * words)
    )
    data = quoted.error(4, packet[: 20 + 4 * words + 8])
    check(node, data, node.forward(data), client_packet(4))
    short = quoted.error(4, packet[: 20 + 4 * words + 7])
    node.assert_dropped(node.forward(short), "icmp_unmatched")


def test_an_error_with_options_of_its_own(node: Bench) -> None:
    packet = bytes(quoted.answer_of_the_vip(4, "udp", 84, 40000))[:28]
    data = quoted.error(4, packet, options=[IPOption_NOP()] * 8)
    check(node, data, node.forward(data), client_packet(4))


def test_quoted_extension_headers(node: Bench) -> None:
    segment = bytes(TCP(sport=84, dport=40000))[:8]
    head = IPv6(src=VIP[6], dst=CLIENT[6])
    for headers in (
        IPv6ExtHdrHopByHop(nh=6),
        IPv6ExtHdrFragment(nh=6, m=1, id=5),
        IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt(nh=6),
    ):
        packet = bytes(head / headers) + segment
        data = quoted.error(6, packet)
        check(node, data, node.forward(data), client_packet(6, "tcp"))
        for length in range(len(packet)):
            short = quoted.error(6, packet[:length])
            node.assert_dropped(node.forward(short), "icmp_unmatched")


def test_a_quoted_first_fragment(node: Bench) -> None:
    packet = bytes(quoted.answer_of_the_vip(4, "udp", 84, 40000, flags="MF"))[:28]
    data = quoted.error(4, packet)
    check(node, data, node.forward(data), client_packet(4))


UNMATCHED = {
    "nothing quoted": (4, b""),
    "half an IPv4 header": (4, bytes(quoted.answer_of_the_vip(4, "udp", 84, 1))[:19]),
    "half an IPv6 header": (6, bytes(quoted.answer_of_the_vip(6, "udp", 84, 1))[:39]),
    "7 bytes of UDP": (4, bytes(quoted.answer_of_the_vip(4, "udp", 84, 1))[:27]),
    "7 bytes of TCP, IPv6": (6, bytes(quoted.answer_of_the_vip(6, "tcp", 84, 1))[:47]),
    "IPv6 in ICMP": (4, bytes(quoted.answer_of_the_vip(6, "udp", 84, 1))),
    "IPv4 in ICMPv6": (6, bytes(quoted.answer_of_the_vip(4, "udp", 84, 1))),
    "header length 4": (4, b"\x44" + bytes(quoted.answer_of_the_vip(4, "udp", 84, 1))[1:]),
    "sent by another": (4, bytes(quoted.answer_of_the_vip(4, "udp", 84, 1, src="192.0.2.11"))),
    "sent by another, IPv6": (
        6,
        bytes(quoted.answer_of_the_vip(6, "udp", 84, 1, src="2001:db8::11")),
    ),
    "sent to the VIP": (
        4,
        bytes(quoted.answer_of_the_vip(4, "udp", 84, 1, src=CLIENT[4], dst=VIP[4])),
    ),
    "a later fragment": (4, bytes(quoted.answer_of_the_vip(4, "udp", 84, 1, frag=3))),
    "a later fragment, IPv6": (
        6,
        bytes(IPv6(src=VIP[6], dst=CLIENT[6]) / IPv6ExtHdrFragment(nh=17, offset=9))
        + bytes(quoted.answer_of_the_vip(6, "udp", 84, 1))[40:],
    ),
    "an echo reply": (4, bytes(IP(src=VIP[4], dst=CLIENT[4]) / ICMP(type=0) / Raw(bytes(64)))),
    "ESP": (6, bytes(IPv6(src=VIP[6], dst=CLIENT[6], nh=50) / Raw(bytes(64)))),
    "AH": (6, bytes(IPv6(src=VIP[6], dst=CLIENT[6], nh=51) / Raw(bytes(64)))),
    "a port without service": (4, bytes(quoted.answer_of_the_vip(4, "udp", 85, 1))),
    "a port without service, IPv6": (6, bytes(quoted.answer_of_the_vip(6, "tcp", 85, 1))),
}


@pytest.mark.parametrize("what", UNMATCHED)
def test_errors_that_are_about_no_flow_of_ours(node: Bench, what: str) -> None:
    family, quote = UNMATCHED[what]
    node.assert_dropped(node.forward(quoted.error(family, quote)), "icmp_unmatched")


def test_an_error_to_one_vip_about_another(make_bench: BenchMaker) -> None:
    """Both VIPs are ours; still, who is told must be who sent."""
    other = ip_address("192.0.2.11")
    services = [bench.service(vip, "udp", 84, "p") for vip in (VIP4, other)]
    node = make_bench(bench.forwarding(services, [bench.pool("p", [bench.member(4, 11)])]))
    packet = bytes(quoted.answer_of_the_vip(4, "udp", 84, 1))
    node.assert_dropped(node.forward(quoted.error(4, packet, dst=str(other))), "icmp_unmatched")


@pytest.mark.parametrize("length", range(8))
@pytest.mark.parametrize("family", FAMILIES)
def test_half_an_icmp_header(node: Bench, family: int, length: int) -> None:
    number = {"proto": 1} if family == 4 else {"nh": 58}
    data = raw(ip(family, **number), Raw(b"\x03\x01\0\0\0\0\0\0"[:length]))
    node.assert_dropped(node.forward(data), "truncated")


def test_other_messages(node: Bench) -> None:
    for kind in (0, 1, 5, 9, 10, 13, 14, 17, 40, 255):
        data = raw(ip(4), ICMP(type=kind), Raw(bytes(64)))
        node.assert_dropped(node.forward(data), "unsupported_protocol")
    for kind in (0, 5, 100, 127, 129, 133, 134, 136, 137, 255):
        data = raw(ip(6, nh=58), Raw(bytes([kind]) + bytes(64)))
        node.assert_dropped(node.forward(data), "unsupported_protocol")
    node.assert_dropped(node.forward(raw(ip(6), ICMPv6ND_NS(tgt=VIP[6]))), "unsupported_protocol")


def test_a_checksum_that_the_metadata_put_into_the_quote(node: Bench) -> None:
    data = quoted.about(4)
    meta = offload(1, csum_start=34, csum_offset=6)
    node.assert_dropped(node.forward(data, offload=meta), "bad_offload")


@pytest.mark.parametrize("family", FAMILIES)
def test_source_affinity(make_bench: BenchMaker, family: int) -> None:
    vip = VIP4 if family == 4 else VIP6
    members = [bench.member(4, n) for n in range(11, 18)]
    node = make_bench(bench.one_service(members, vip, affinity="source"))
    for sport in (1, 2, 3):
        data = quoted.about(family, sport=sport)
        check(node, data, node.forward(data), client_packet(family))


# ---- after the table has changed ----


def moved(node: Bench, flow: bytes, protocol: str) -> str:
    """The flow begins, then backends come that its Maglev choice is another of."""
    backend = node.backend_of(flow, flow)
    members = [bench.member(4, n, weight=1 if n < 18 else 50) for n in range(11, 60)]
    node.publish(bench.one_service(members, protocol=protocol))
    assert node.choose(flow)[1].name != backend
    return backend


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_errors_follow_the_flow_table(make_bench: BenchMaker, protocol: str, workers: int) -> None:
    """They reach another worker than the flow, and make no entry there."""
    members = [bench.member(4, n) for n in range(11, 18)]
    node = make_bench(bench.one_service(members, protocol=protocol), workers=workers)
    flow = raw(ip(4), transport(protocol, **({"flags": "A"} if protocol == "tcp" else {})))
    backend = moved(node, flow, protocol)
    for _ in range(2):
        outcome = node.forward(quoted.about(4, protocol), worker=workers - 1)
        assert list(outcome.backends) == [("p", backend)]
        assert outcome.events == ({"flow_found_elsewhere": 1} if workers == 2 else {})


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_has_no_flags_of_the_packet_before_it(
    make_bench: BenchMaker, workers: int
) -> None:
    """A bare SYN is treated otherwise; an error behind one is no SYN."""
    members = [bench.member(4, n) for n in range(11, 18)]
    node = make_bench(bench.one_service(members, protocol="tcp"), workers=workers)
    flow = raw(ip(4), transport("tcp", flags="FA"))
    backend = moved(node, flow, "tcp")
    syn = raw(ip(4), transport("tcp", flags="S", sport=1))
    last = workers - 1
    node.forward(syn, worker=last)
    assert node.backend_of(quoted.about(4, "tcp"), worker=last) == backend


def test_an_error_does_not_prolong_a_flow(make_bench: BenchMaker) -> None:
    """Anybody may send one; the flow's own packets alone keep it."""
    members = [bench.member(4, n) for n in range(11, 18)]
    node = make_bench(bench.one_service(members))
    flow = raw(ip(4), transport("udp"))
    backend = moved(node, flow, "udp")
    idle_ms = 120_000
    error = quoted.about(4)
    assert node.backend_of(error, now_ms=bench.NOW_MS + idle_ms) == backend
    assert node.backend_of(error, now_ms=bench.NOW_MS + idle_ms + 1000) != backend


def test_an_error_of_a_service_without_backends(make_bench: BenchMaker) -> None:
    node = make_bench(bench.one_service([], empty="reject"))
    node.assert_dropped(node.forward(quoted.about(4)), "no_backend")


def test_a_large_error_is_dropped_when_the_tunnel_is_small(make_bench: BenchMaker) -> None:
    """RFC 1122 section 3.2.2, RFC 4443 section 2.4 (e): no error about an error."""
    members = [bench.member(4, 11, paths=[bench.path(4, 11, mtu=600)])]
    for family, vip, fields in ((4, VIP4, {"flags": "DF"}), (6, VIP6, {})):
        node = make_bench(bench.one_service(members, vip))
        packet = bytes(quoted.answer_of_the_vip(family, "udp", 84, 1) / Raw(bytes(600)))
        data = quoted.error(family, packet, **fields)
        node.assert_dropped(node.forward(data), "too_big")


def test_a_large_error_that_may_be_fragmented_is(make_bench: BenchMaker) -> None:
    members = [bench.member(4, 11, paths=[bench.path(4, 11, mtu=600)])]
    node = make_bench(bench.one_service(members))
    packet = bytes(quoted.answer_of_the_vip(4, "udp", 84, 1) / Raw(bytes(600)))
    outcome = node.forward(quoted.error(4, packet))
    assert len(outcome.frames) == 2
    assert all(len(encap.unwrapped(sent)) <= 576 for sent in outcome.frames)
