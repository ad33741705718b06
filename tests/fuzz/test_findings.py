"""What fuzzing and review of the packet path found, each as the packets that showed it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPerror, TCPerror
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from lbfwd import ring
from lbfwd.forwarding import FlowTimes, Forwarding, Member
from tests.packet import bench
from tests.packet.bench import NOW_MS, BenchMaker
from tests.packet.crafted import CLIENT, NEEDS_CSUM, VIP, ip, offload, raw

FLOWS = 40  # so many that a table with another backend moves some
HELD_MOST = 256
NOBODY4 = ("0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255")
NOBODY6 = ("::", "::1", "ff02::1")


def many(count: int) -> list[Member]:
    return [bench.member(4, number) for number in range(11, 11 + count)]


def state(members: list[Member], protocol: str = "tcp", **options: Any) -> Forwarding:
    return bench.one_service(members, protocol=protocol, **options)


def without(members: list[Member], name: str) -> list[Member]:
    """The backend fails: it stays in the pool and is reached by no way."""
    return [dataclasses.replace(m, paths=()) if m.name == name else m for m in members]


def tcp(port: int, flags: str, **fields: object) -> bytes:
    return raw(ip(4, **fields), TCP(sport=port, dport=84, flags=flags), Raw(b"x" * 40))


def quoted(port: int) -> bytes:
    """An error about what the VIP sent to that port of the client."""
    inner = IPerror(src=VIP[4], dst=CLIENT[4]) / TCPerror(sport=84, dport=port)
    return raw(ip(4), ICMP(type=3, code=1), inner)


def first_fragment(port: int) -> bytes:
    return raw(ip(4, id=port, flags="MF"), TCP(sport=port, dport=84, flags="A"), Raw(b"x" * 40))


@pytest.mark.parametrize("away", [quoted, first_fragment])
def test_what_comes_to_another_worker_sees_the_flows_last_word(
    make_bench: BenchMaker, away: Callable[[int], bytes]
) -> None:
    """Worker 1 had the flows once, worker 0 has them now, and their backend has changed."""
    members = many(3)
    node = make_bench(state(members), workers=2)
    old = {
        port: node.backend_of(tcp(port, "S"), tcp(port, "A"), worker=1) for port in range(1, FLOWS)
    }
    for port, backend in old.items():
        assert node.backend_of(tcp(port, "A"), now_ms=NOW_MS + 1000) == backend
    node.publish(state(without(members, "b11")))
    new = {port: node.backend_of(tcp(port, "A"), now_ms=NOW_MS + 2000) for port in old}
    assert new != old
    node.publish(state(members))  # it recovers: what worker 1 remembers could serve again
    for port, backend in new.items():
        assert node.backend_of(away(port), worker=1, now_ms=NOW_MS + 3000) == backend


def test_a_flow_that_moved_on_is_found_where_it_went(make_bench: BenchMaker) -> None:
    """Its own worker's entry is of no use: before the table's choice comes what others know."""
    members = many(3)
    node = make_bench(state(members), workers=2)
    for port in range(1, FLOWS):
        node.backend_of(tcp(port, "S"), tcp(port, "A"))
    node.publish(state(without(members, "b11")))
    new = {port: node.backend_of(tcp(port, "A"), worker=1) for port in range(1, FLOWS)}
    node.publish(state([*without(members, "b11"), *many(9)[3:]]))  # the table's choice changes
    for port, backend in new.items():
        assert node.backend_of(tcp(port, "A"), now_ms=NOW_MS + 1000) == backend


def test_a_clock_a_second_ahead_is_no_great_age(make_bench: BenchMaker) -> None:
    """A worker's burst began before the second, the other's entry is from after it."""
    node = make_bench(state(many(7)), workers=2)
    old = {port: node.backend_of(tcp(port, "S"), tcp(port, "A")) for port in range(1, FLOWS)}
    node.publish(state(many(14)))
    for port, backend in old.items():
        assert node.backend_of(tcp(port, "A"), worker=1, now_ms=NOW_MS - 1) == backend


def test_an_error_after_a_syn_is_no_syn(make_bench: BenchMaker) -> None:
    """What the last packet left on the stack is not part of the next."""
    node = make_bench(state(many(7)), workers=2)
    old = {port: node.backend_of(tcp(port, "S"), tcp(port, "A")) for port in range(1, FLOWS)}
    node.publish(state(many(14)))
    for port, backend in old.items():
        node.forward(tcp(1000 + port, "S"), worker=1)
        assert node.backend_of(quoted(port), worker=1) == backend


def test_source_affinity_outlives_one_connection(make_bench: BenchMaker) -> None:
    """A client's connections share an entry: the end of one is not the end of all."""
    node = make_bench(state(many(3), affinity="source"))
    sources = [f"198.51.100.{n}" for n in range(1, FLOWS)]
    old = {s: node.backend_of(tcp(1, "S", src=s), tcp(1, "A", src=s)) for s in sources}
    for s in sources:
        node.forward(tcp(2, "S", src=s), tcp(2, "FA", src=s))
    node.publish(state(many(14), affinity="source"))
    for s, backend in old.items():
        assert node.backend_of(tcp(3, "S", src=s), tcp(1, "A", src=s)) == backend


def test_source_affinity_holds_for_all_workers(make_bench: BenchMaker) -> None:
    """A client's connections are spread over the workers, and all go to one backend."""
    node = make_bench(state(many(3), affinity="source"), workers=2)
    sources = [f"198.51.100.{n}" for n in range(1, FLOWS)]
    old = {s: node.backend_of(tcp(1, "S", src=s), tcp(1, "A", src=s)) for s in sources}
    node.publish(state(many(14), affinity="source"))
    for s, backend in old.items():
        assert node.backend_of(tcp(2, "S", src=s), worker=1) == backend


def nobody(family: int, source: str) -> Packet:
    return IP(src=source, dst=VIP[4], flags="DF") if family == 4 else IPv6(src=source, dst=VIP[6])


SOURCES = [*((4, source) for source in NOBODY4), *((6, source) for source in NOBODY6)]


@pytest.mark.parametrize(("family", "source"), SOURCES)
def test_nobody_is_answered(make_bench: BenchMaker, family: int, source: str) -> None:
    """RFC 1122 section 3.2.2, RFC 4443 section 2.4 (e): the source must be one host's."""
    everywhere = bench.all_combinations()
    empty = [dataclasses.replace(s, pool="none", empty="reject") for s in everywhere.services]
    node = make_bench(bench.forwarding(empty, [bench.pool("none", [])]))
    head = nobody(family, source)
    echo = ICMP(type=8) if family == 4 else ICMPv6EchoRequest()
    node.assert_dropped(node.forward(raw(head, echo)), "echo_refused")
    node.assert_dropped(node.forward(raw(head, TCP(dport=84))), "no_backend")
    node.assert_dropped(node.forward(raw(head, UDP(dport=84))), "no_backend")
    full = make_bench(everywhere)
    full.assert_dropped(full.forward(raw(head, UDP(dport=84), Raw(bytes(1450)))), "too_big")


@pytest.mark.parametrize("mac", ["ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "33:33:00:00:00:01"])
def test_what_was_sent_to_all_is_not_answered(make_bench: BenchMaker, mac: str) -> None:
    """Nor is a station that calls itself everybody: an answer would go to everybody."""
    node = make_bench(bench.all_combinations())
    request = ip(4) / ICMP(type=8)
    frame = bytes(Ether(src=bench.ROUTER_MAC, dst=mac) / request)
    node.assert_dropped(node.forward(frame), "echo_refused")
    frame = bytes(Ether(src=mac, dst=bench.NODE_MAC.hex(":")) / request)
    node.assert_dropped(node.forward(frame), "echo_refused")


@pytest.mark.parametrize("mtu", [68, 576, 1280])
def test_answers_fit_the_ring_of_any_link(make_bench: BenchMaker, mtu: int) -> None:
    """An ICMPv6 error has up to 1280 bytes, and may be about a super-frame."""
    least = 58 + 14 + 1280
    shape = ring.tx_geometry(256, mtu)
    assert shape.frame_bytes >= least
    node = make_bench(state(many(1)))
    with pytest.raises(OSError, match="Invalid argument"):
        node.worker.add_tx(5, -1, ring.Geometry(3, least - 1, 1, least - 1))


def test_echo_does_not_use_up_the_errors(make_bench: BenchMaker) -> None:
    """A flood of pings must not make a hole into which large packets fall."""
    node = make_bench(bench.all_combinations(), tx_slots=1024)
    ping = raw(ip(4), ICMP(type=8))
    for _ in range(300):
        node.worker.forward(ping, now_ms=NOW_MS)
    node.worker.sent(0)
    big = raw(ip(4, flags="DF"), UDP(sport=1, dport=84), Raw(bytes(1450)))
    assert node.forward(big).events == {"too_big_sent": 1, "flow_new": 1}


def fragment(number: int) -> bytes:
    return raw(ip(4, id=number, frag=10, proto=17), Raw(bytes(64)))


def leader(number: int) -> bytes:
    return raw(ip(4, id=number, flags="MF"), UDP(sport=number, dport=84), Raw(bytes(64)))


def test_fragments_that_nobody_leads_make_room_for_the_next(make_bench: BenchMaker) -> None:
    """Else 512 packets a second would keep all honest fragments from waiting."""
    node = make_bench(state(many(3), "udp"), tx_slots=1024)
    flood = [fragment(number) for number in range(1, HELD_MOST + 1)]
    assert node.forward(*flood).drops == {}
    late = node.forward(fragment(1000))
    assert late.drops == {"fragment_no_room": 1}  # the oldest
    assert node.forward(leader(1000)).forwarded == 2
    assert node.forward(leader(1)).forwarded == 1


def test_a_checksum_that_hardware_should_put_into_an_icmp_message(make_bench: BenchMaker) -> None:
    """Byte 6 is where UDP has one: an ICMP message has the MTU there."""
    node = make_bench(state(many(3)))
    where = offload(NEEDS_CSUM, csum_start=34, csum_offset=6)
    outcome = node.forward(quoted(1), offload=where)
    node.assert_dropped(outcome, "bad_offload")


def test_expired_entries_do_not_come_back(make_bench: BenchMaker) -> None:
    """The clock of an entry has 16 bits, 18 hours: unused entries are freed before that."""
    times = FlowTimes(tcp_idle_s=60)
    members = many(7)
    before = dataclasses.replace(state(members), flow_times=times)
    node = make_bench(before)
    old = {port: node.backend_of(tcp(port, "S"), tcp(port, "A")) for port in range(1, FLOWS)}
    for second in range(2000):
        node.worker.forward(b"", now_ms=NOW_MS + second * 1000)
    node.publish(dataclasses.replace(state(many(14)), flow_times=times))
    later = NOW_MS + 65536 * 1000
    new = {port: node.backend_of(tcp(port, "A"), now_ms=later) for port in old}
    assert new != old
