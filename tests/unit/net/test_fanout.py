import random
import struct
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from lbfwd.net.bpf import encode
from lbfwd.net.fanout import fanout_program
from tests.unit.net.cbpf import Packet, decode, execute

TCP, UDP, ICMP, ICMP6, FRAGMENT = 6, 17, 1, 58, 44
CLIENT4, VIP4 = ip_address("198.51.100.7"), ip_address("192.0.2.10")
CLIENT6, VIP6 = ip_address("2001:db8:1::7"), ip_address("2001:db8::10")
# Upper 0.1 % points of the chi-square distribution, by degrees of freedom.
CHI_SQUARE = {1: 10.83, 2: 13.82, 3: 16.27, 6: 22.46, 15: 37.70}


def ipv4(src, dst, protocol, payload, *, flags=0, ident=1, options=b""):
    words = 5 + len(options) // 4
    head = struct.pack(
        "!BBHHHBBH", 0x40 | words, 0, 4 * words + len(payload), ident, flags, 64, protocol, 0
    )
    return Packet(head + src.packed + dst.packed + options + payload, 0x0800)


def ipv6(src, dst, protocol, payload):
    head = struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64)
    return Packet(head + src.packed + dst.packed + payload, 0x86DD)


def ports(source, destination=80):
    return struct.pack("!HH", source, destination) + b"\0" * 16


class Fanout:
    def __init__(self, workers, alive=None, mode="hash", cpus=None):
        alive = range(workers) if alive is None else alive
        cpus = range(workers) if cpus is None else cpus
        self.program = decode(encode(fanout_program(mode, cpus, alive)))

    def __call__(self, packet):
        return execute(self.program, packet)


def flows(count, seed=7):
    rng = random.Random(seed)
    for _ in range(count):
        protocol, payload = rng.choice((TCP, UDP)), ports(rng.randrange(1024, 65536))
        if rng.random() < 0.5:
            yield ipv4(IPv4Address(rng.getrandbits(32)), VIP4, protocol, payload)
        else:
            yield ipv6(IPv6Address(rng.getrandbits(128)), VIP6, protocol, payload)


def sequential(kind, count):
    """Flows that differ in one field only, counting up: what weak mixing deals out badly."""
    for i in range(count):
        yield {
            "v4 ports": lambda i=i: ipv4(CLIENT4, VIP4, TCP, ports(1024 + i)),
            "v4 even ports": lambda i=i: ipv4(CLIENT4, VIP4, TCP, ports(1024 + 2 * i)),
            "v4 sources": lambda i=i: ipv4(CLIENT4 + i, VIP4, TCP, ports(4000)),
            "v4 networks": lambda i=i: ipv4(IPv4Address(i << 12), VIP4, TCP, ports(4000)),
            "v4 fragments": lambda i=i: ipv4(CLIENT4, VIP4, UDP, b"", flags=0x2000, ident=i),
            "v6 ports": lambda i=i: ipv6(CLIENT6, VIP6, TCP, ports(1024 + i)),
            "v6 sources": lambda i=i: ipv6(CLIENT6 + i, VIP6, UDP, ports(4000)),
            "v6 networks": lambda i=i: ipv6(IPv6Address(i << 64), VIP6, UDP, ports(4000)),
        }[kind]()


def chi_square(fanout, packets, slots):
    counts = dict.fromkeys(slots, 0)
    for packet in packets:
        counts[fanout(packet)] += 1
    expected = sum(counts.values()) / len(counts)
    return sum((count - expected) ** 2 / expected for count in counts.values())


@pytest.mark.parametrize("workers", [2, 3, 4, 7, 16])
def test_random_flows_are_spread_evenly(workers):
    assert chi_square(Fanout(workers), flows(8000), range(workers)) < CHI_SQUARE[workers - 1]


@pytest.mark.parametrize("workers", [2, 3, 4])
@pytest.mark.parametrize(
    "kind",
    [
        *("v4 ports", "v4 even ports", "v4 sources", "v4 networks", "v4 fragments"),
        *("v6 ports", "v6 sources", "v6 networks"),
    ],
)
def test_flows_that_count_up_are_spread_evenly(kind, workers):
    # Counting up may come out more even than chance, never less.
    assert chi_square(Fanout(workers), sequential(kind, 4000), range(workers)) < 16.27


def test_one_worker_gets_everything():
    assert {Fanout(1)(packet) for packet in flows(50)} == {0}


@pytest.mark.parametrize("dead", [{0}, {2}, {0, 3}, {1, 2, 3}])
def test_a_dead_slot_moves_its_own_flows_only_and_spreads_them(dead):
    workers = 4
    alive = set(range(workers)) - dead
    before, after, packets = Fanout(workers), Fanout(workers, alive), list(flows(4000))
    moved = [packet for packet in packets if before(packet) in dead]
    assert all(after(p) == before(p) for p in packets if before(p) not in dead)
    assert len(moved) > 800
    assert chi_square(after, moved, sorted(alive)) < CHI_SQUARE.get(len(alive) - 1, 0.001)


def test_a_second_death_moves_no_flow_of_the_first():
    packets = list(flows(3000))
    one, two = Fanout(6, {1, 2, 3, 4, 5}), Fanout(6, {1, 2, 3, 4})
    assert all(two(p) == one(p) for p in packets if one(p) != 5)


def test_with_nobody_alive_every_flow_waits_at_its_own_slot():
    before, after = Fanout(3), Fanout(3, ())
    assert all(after(packet) == before(packet) for packet in flows(200))


def test_many_workers_and_deaths_stay_below_the_kernels_limit():
    fanout = Fanout(64, {63})
    assert {fanout(packet) for packet in flows(50)} == {63}


def distinct(make, values, workers=64):
    fanout = Fanout(workers)
    return len({fanout(make(value)) for value in values})


@pytest.mark.parametrize("options", [b"", b"\x01" * 4, b"\x01" * 40])
def test_ipv4_ports_are_found_behind_options(options):
    def make(port, flags=0):
        return ipv4(CLIENT4, VIP4, TCP, ports(port), flags=flags, options=options)

    assert distinct(make, range(200)) > 40
    fanout = Fanout(64)
    assert [fanout(make(p)) for p in range(50)] == [
        fanout(ipv4(CLIENT4, VIP4, TCP, ports(p))) for p in range(50)
    ]


def test_the_payload_and_dont_fragment_do_not_count():
    fanout = Fanout(64)
    for port in range(50):
        plain = fanout(ipv4(CLIENT4, VIP4, TCP, ports(port)))
        assert (
            fanout(ipv4(CLIENT4, VIP4, TCP, ports(port) + b"data", flags=0x4000, ident=9)) == plain
        )


def test_tcp_and_udp_are_different_flows():
    fanout = Fanout(64)
    tcp = [fanout(ipv4(CLIENT4, VIP4, TCP, ports(p))) for p in range(50)]
    assert tcp != [fanout(ipv4(CLIENT4, VIP4, UDP, ports(p))) for p in range(50)]


def test_ipv4_fragments_of_one_datagram_meet_whatever_they_hold():
    fanout = Fanout(64)
    for ident in range(100):
        first = fanout(ipv4(CLIENT4, VIP4, UDP, ports(ident), flags=0x2000, ident=ident))
        middle = fanout(ipv4(CLIENT4, VIP4, UDP, b"x" * 40, flags=0x2003, ident=ident))
        last = fanout(ipv4(CLIENT4, VIP4, UDP, b"y", flags=0x0008, ident=ident))
        assert first == middle == last
    assert distinct(lambda i: ipv4(CLIENT4, VIP4, UDP, b"", flags=0x2000, ident=i), range(200)) > 40


def test_ipv6_fragments_of_one_datagram_meet():
    fanout = Fanout(64)

    def piece(ident, offset, more, payload, next_header=UDP):
        head = struct.pack("!BBHI", next_header, 0, offset << 3 | more, ident)
        return ipv6(CLIENT6, VIP6, FRAGMENT, head + payload)

    for ident in range(100):
        first = fanout(piece(ident, 0, 1, ports(ident)))
        assert first == fanout(piece(ident, 181, 0, b"y"))
    assert distinct(lambda i: piece(i, 0, 1, b""), range(200)) > 40


@pytest.mark.parametrize(
    "make",
    [
        lambda n: ipv4(CLIENT4, VIP4, ICMP, struct.pack("!HHHH", 0x800, n, n, n)),
        lambda n: ipv6(CLIENT6, VIP6, ICMP6, struct.pack("!HHHH", 0x8000, n, n, n)),
    ],
)
def test_icmp_goes_by_addresses(make):
    assert distinct(make, range(100)) == 1


def test_icmp_of_different_senders_is_spread():
    assert distinct(lambda n: ipv4(CLIENT4 + n, VIP4, ICMP, bytes(8)), range(200)) > 40


def test_a_packet_cut_anywhere_goes_to_a_living_slot():
    fanout = Fanout(4, {1, 3})
    frag6 = ipv6(CLIENT6, VIP6, FRAGMENT, bytes(24))
    whole = [*flows(6), frag6, ipv4(CLIENT4, VIP4, TCP, ports(1), options=bytes(40))]
    for packet in whole:
        for length in range(len(packet.data)):
            assert fanout(Packet(packet.data[:length], packet.protocol)) in {1, 3}


@pytest.mark.parametrize("protocol", [0x0806, 0x8100, 0x88CC])
def test_what_is_not_ip_goes_to_a_living_slot(protocol):
    assert Fanout(4, {2, 3})(Packet(bytes(60), protocol)) == 2


def on(packet, **ancillary):
    return Packet(packet.data, packet.protocol, **ancillary)


def test_cpu_mode_follows_the_list_of_cpus():
    fanout = Fanout(3, mode="cpu", cpus=(6, 2, 9))
    for packet in flows(20):
        assert [fanout(on(packet, cpu=cpu)) for cpu in (6, 2, 9)] == [0, 1, 2]


def test_cpu_mode_hashes_on_another_cpu_and_for_a_dead_slot():
    fanout = Fanout(4, {1, 2}, mode="cpu", cpus=(6, 2, 9, 4))
    by_hash = Fanout(4, {1, 2})
    for packet in flows(50):
        assert fanout(on(packet, cpu=6)) == fanout(on(packet, cpu=7)) == by_hash(packet)
        assert [fanout(on(packet, cpu=cpu)) for cpu in (2, 9)] == [1, 2]


def test_queue_mode_takes_the_recorded_queue_modulo_the_slots():
    fanout = Fanout(3, mode="queue")
    for packet in flows(10):
        # the kernel records the queue plus one
        assert [fanout(on(packet, queue=q + 1)) for q in range(7)] == [0, 1, 2, 0, 1, 2, 0]


def test_queue_mode_hashes_without_a_queue_and_for_a_dead_slot():
    fanout, by_hash = Fanout(3, {0, 2}, mode="queue"), Fanout(3, {0, 2})
    for packet in flows(50):
        assert fanout(packet) == fanout(on(packet, queue=2)) == by_hash(packet)
        assert fanout(on(packet, queue=1)) == 0


@pytest.mark.parametrize(
    ("mode", "cpus", "alive", "match"),
    [
        ("rss", (0, 1), (0, 1), r"fanout = 'rss': must be one of hash, cpu, queue"),
        ("hash", (), (), r"alive slots \[\] of 0 workers"),
        ("hash", (0, 1), (0, 2), r"alive slots \[0, 2\] of 2 workers"),
    ],
)
def test_bad_arguments_are_named(mode, cpus, alive, match):
    with pytest.raises(ValueError, match=match):
        fanout_program(mode, cpus, alive)


@pytest.mark.parametrize("mode", ["hash", "cpu", "queue"])
@pytest.mark.parametrize("alive", [{0, 1, 2}, {0, 2}, {1}])
def test_a_program_yields_the_member_of_the_slot(mode, alive):
    members = (17, 1, 40)
    slots = Fanout(3, alive, mode, cpus=(4, 5, 6))
    mapped = decode(encode(fanout_program(mode, (4, 5, 6), alive, members)))
    packets = [replace(p, cpu=n % 8, queue=n % 5) for n, p in enumerate(flows(200))]
    packets.append(Packet(b"\0" * 30, 0x0806))
    assert [execute(mapped, p) for p in packets] == [members[slots(p)] for p in packets]
