"""The outer header's choices: DF and identification, and a source that varies by flow."""

from ipaddress import ip_address, ip_network

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from tests.oracle import encap, fragments
from tests.packet import bench, quoted
from tests.packet.bench import VIP6, Bench, BenchMaker
from tests.packet.crafted import ethernet, frame, ip, raw

PREFIX = {4: "203.0.113.0/24", 6: "fd00:5::/96"}
IDENTIFICATION = slice(18, 20)  # of a frame with an IPv4 header
BITS = {4: (1, 4, 8, 16, 32), 6: (1, 8, 16, 32)}


def outer_source(sent: bytes) -> encap.IPAddress:
    packet = Ether(sent)
    return ip_address((packet[IP] if sent[12:14] == b"\x08\x00" else packet[IPv6]).src)


def without_df(make_bench: BenchMaker, workers: int = 1) -> Bench:
    members = [bench.member(4, 11, paths=[bench.path(4, 11, may_fragment=True)])]
    return make_bench(bench.one_service(members), workers=workers, tx_slots=2048)


def test_without_df_every_packet_has_an_identification_of_its_own(make_bench: BenchMaker) -> None:
    node = without_df(make_bench)
    data = frame(4, "udp")
    hop = node.choose(data)[2]
    ends = hop.source, hop.destination, hop.src_mac, hop.dst_mac
    outcome = node.forward(*[data] * 1000)
    identifications = [IP(sent[14:]).id for sent in outcome.frames]
    assert len(set(identifications)) == 1000
    assert outcome.frames == [
        encap.wrapped(data[14:], *ends, identification=number) for number in identifications
    ]


def test_the_identification_wraps_around(make_bench: BenchMaker) -> None:
    node = without_df(make_bench)
    data = frame(4, "udp")
    seen = []
    for _ in range(70):
        outcome = node.forward(*[data] * 1000)
        seen += [sent[IDENTIFICATION] for sent in outcome.frames]
    assert len(set(seen[:65536])) == 65536


def test_the_parts_of_a_packet_differ_in_it(make_bench: BenchMaker) -> None:
    node = without_df(make_bench)
    sent = node.forward(frame(4, "udp", bytes(9000))).frames
    assert len({IP(data[14:]).id for data in sent}) == len(sent) == 7


def test_two_workers_do_not_begin_alike(make_bench: BenchMaker) -> None:
    node = without_df(make_bench, workers=2)
    data = frame(4, "udp")
    both = [node.forward(*[data] * 500, worker=n).frames for n in (0, 1)]
    assert len({IP(sent[14:]).id for frames in both for sent in frames}) == 1000


def test_an_ipv6_outer_header_has_none(make_bench: BenchMaker) -> None:
    members = [bench.member(6, 11, paths=[bench.path(6, 11, may_fragment=True)])]
    node = make_bench(bench.one_service(members))
    data = frame(4, "udp")
    node.assert_forwarded(data, node.forward(data), [data[14:]])


# ---- source entropy ----


def with_entropy(make_bench: BenchMaker, family: int, bits: int) -> Bench:
    prefix = ip_network(PREFIX[family])
    hosts = prefix.max_prefixlen - bits
    source = str(ip_network((prefix.network_address, hosts), strict=False).network_address)
    hop = bench.path(family, 11, source=source, entropy_bits=bits)
    services = [bench.service(vip, "udp", 84, "p") for vip in (bench.VIP4, VIP6)]
    pools = [bench.pool("p", [bench.member(family, 11, paths=[hop])])]
    return make_bench(bench.forwarding(services, pools), tx_slots=1024)


@pytest.mark.parametrize(("outer", "bits"), [(f, bits) for f in BITS for bits in BITS[f]])
@pytest.mark.parametrize("inner", [4, 6])
def test_the_source_is_in_the_prefix_and_all_else_is_right(
    make_bench: BenchMaker, inner: int, outer: int, bits: int
) -> None:
    """Checksums included: the whole frame is what Scapy builds with that source."""
    node = with_entropy(make_bench, outer, bits)
    used = set()
    for sport in range(300):
        data = bytes(ethernet() / ip(inner) / UDP(sport=sport, dport=84) / Raw(b"x"))
        hop = node.choose(data)[2]
        network = ip_network((hop.source, hop.source.max_prefixlen - bits))
        first, second = node.forward(data, data).frames
        assert first == second, "a flow keeps its source"
        source = outer_source(first)
        assert source in network
        wanted = encap.wrapped(data[14:], source, hop.destination, hop.src_mac, hop.dst_mac)
        assert first == wanted
        used.add(source)
    assert len(used) >= min(2**bits, 150), "flows are spread"


@pytest.mark.parametrize("outer", [4, 6])
def test_fragments_and_errors_have_their_flows_source(make_bench: BenchMaker, outer: int) -> None:
    node = with_entropy(make_bench, outer, 8)
    whole = raw(ip(4), UDP(sport=40000, dport=84), Raw(b"x"))
    parts = fragments.split(
        bytes(ip(4, id=7) / UDP(sport=40000, dport=84) / Raw(bytes(3000))), 1200
    )
    frames = [whole, *[whole[:14] + part for part in parts], quoted.about(4)]
    outcome = node.forward(*frames)
    assert len(outcome.frames) == len(frames)
    assert len({outer_source(sent) for sent in outcome.frames}) == 1


def test_entropy_does_not_follow_the_choice_of_a_backend(make_bench: BenchMaker) -> None:
    """All flows of one backend of many are spread over the sources, too."""
    members = [
        bench.member(4, n, paths=[bench.path(4, n, source="203.0.113.0", entropy_bits=4)])
        for n in range(11, 43)
    ]
    node = make_bench(bench.one_service(members))
    used: dict[str, set[encap.IPAddress]] = {}
    for sport in range(2000):
        data = bytes(ethernet() / ip(4) / UDP(sport=sport, dport=84))
        (sent,) = node.forward(data).frames
        used.setdefault(Ether(sent)[IP].dst, set()).add(outer_source(sent))
    assert len(used) == 32
    assert min(map(len, used.values())) >= 12, "of 16 sources, some 62 flows a backend"
