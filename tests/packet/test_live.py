"""A marked packet goes as any other, and how it went is written down. docs/trace.md.

Frames are Scapy's; where they go is said by the oracle of tests/packet/bench.py.
"""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)
from scapy.packet import Packet, Raw

from lbfwd.live import Found, Marks
from tests.packet import bench
from tests.packet.bench import NOW_MS, VIP4, Bench, BenchMaker
from tests.packet.crafted import frame, ip, offload, raw, transport
from tests.packet.memory import published
from tests.packet.rings import forward_block
from tests.packet.torn import assert_never_torn

TOKEN = bytes(range(100, 116))
MARK = b"lbfwdtrc" + TOKEN
OPTIONS = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1, 2)), ("NOP", None), ("WScale", 7)]
WRONG = 0x1234  # a checksum


def marked(family: int, protocol: str, mark: bytes = MARK, port: int = 84) -> bytes:
    """A packet to a VIP that bears a mark, with a checksum that nobody computed."""
    flags = {"flags": "A"} if protocol == "tcp" else {}
    return raw(ip(family), transport(protocol, dport=port, chksum=WRONG, **flags), Raw(mark))


@pytest.fixture
def node(make_bench: BenchMaker) -> Bench:
    return make_bench(bench.all_combinations(), workers=2)


@pytest.fixture
def marks(node: Bench) -> Iterator[Marks]:
    with closing(Marks(node.tables.files()[0], 2)) as made:
        made.arm(TOKEN, NOW_MS + 1000)
        yield made


def found(node: Bench, marks: Marks, data: bytes) -> Found:
    """Forward a frame that is marked, which must go as it would otherwise."""
    node.assert_forwarded(data, node.forward(data), [data[14:]])
    record = marks.find(TOKEN)
    assert record is not None
    assert (record.reason, record.generation, record.at_ms) == ("none", 1, NOW_MS)
    _service, backend, hop = node.choose(data)
    assert backend_of(node, record) == backend.name
    assert (record.worker, record.rx, record.tx) == (0, 0, hop.tx)
    return record


def backend_of(node: Bench, record: Found) -> str:
    seats = {slot: key for (slot, _), key in node.tables.seats().backends.items()}
    assert record.backend is not None
    return seats[record.backend][1]


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize(("family", "port"), [(4, 84), (4, 86), (6, 84), (6, 86)])
def test_a_marked_packet_goes_unchanged_and_is_reported(
    node: Bench, marks: Marks, family: int, protocol: str, port: int
) -> None:
    data = marked(family, protocol, port=port)
    record = found(node, marks, data)
    service, _, _ = node.choose(data)
    assert node.tables.seats().services[record.service or 0] == (
        service.vip, protocol, port,
    )  # fmt: skip
    assert not record.known, "the Maglev table named its backend"
    assert found(node, marks, data).known, "the first one made an entry"


PACKETS: dict[str, Packet] = {
    "TCP options": ip(4) / TCP(sport=1, dport=84, flags="A", options=OPTIONS),
    "TCP with SYN": ip(4) / TCP(sport=2, dport=84),
    "IPv4 options": ip(4, options=[b"\x01" * 8]) / UDP(sport=3, dport=84),
    "extensions": ip(6) / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / UDP(sport=4, dport=84),
    "atomic fragment": ip(6) / IPv6ExtHdrFragment(id=5) / TCP(sport=5, dport=84, flags="A"),
}  # fmt: skip


@pytest.mark.parametrize("name", PACKETS)
def test_whatever_stands_before_the_payload(node: Bench, marks: Marks, name: str) -> None:
    found(node, marks, raw(PACKETS[name] / Raw(MARK)))


def test_padding_behind_the_packet_does_not_hide_the_mark(node: Bench, marks: Marks) -> None:
    data = marked(4, "udp")
    node.assert_forwarded(data, node.forward(data + bytes(20)), [data[14:]])
    assert marks.find(TOKEN)


UNMARKED = {
    "another first half": marked(4, "tcp", MARK[:8] + bytes(8) + MARK[16:]),
    "another second half": marked(4, "tcp", MARK[:16] + bytes(8)),
    "another magic": marked(4, "tcp", b"LBFWDTRC" + TOKEN),
    "one byte less": marked(4, "tcp", MARK[:-1]),
    "one byte more": marked(4, "udp", MARK + b"\0"),
    "a byte in front": marked(6, "udp", b"\0" + MARK),
    "no payload": marked(4, "tcp", b""),
    "in TCP options": raw(ip(4), TCP(dport=84, flags="A", dataofs=11), Raw(MARK)),
    "a header that is longer than the segment": raw(
        ip(4), TCP(dport=84, flags="A", dataofs=15), Raw(MARK)
    ),
    "a header that is too short": raw(ip(4), TCP(dport=84, flags="A", dataofs=4), Raw(MARK)),
    "a first fragment": raw(ip(4, flags="MF"), UDP(dport=84), Raw(MARK)),
    "not whole": marked(4, "tcp")[:-1],
    "no IP": b"\x02" * 12 + b"\x08\x06" + MARK * 2,
    "another protocol": raw(ip(4, proto=132), Raw(bytes(8) + MARK)),
    "a broken IP header": raw(ip(4, chksum=1), UDP(dport=84), Raw(MARK)),
    "too short for Ethernet": b"\x02" * 10,
}


@pytest.mark.parametrize("name", UNMARKED)
def test_what_is_no_mark_goes_unnoticed(node: Bench, marks: Marks, name: str) -> None:
    before = node.forward(UNMARKED[name])
    with published(node.tables) as memory:
        assert not memory.control.slots[0].live.sequence, "nothing was written"
    marks.disarm()
    after = node.forward(UNMARKED[name], now_ms=NOW_MS + 1)
    assert (before.drops, before.sent) == (after.drops, after.sent)


@pytest.mark.parametrize("at", [0, 3, 6])
def test_it_goes_in_its_place_among_others(node: Bench, marks: Marks, at: int) -> None:
    others = [raw(ip(4), UDP(sport=100 + n, dport=84), Raw(bytes([n]) * 30)) for n in range(6)]
    burst = [*others[:at], marked(4, "udp"), *others[at:]]
    before = node.tables.totals()
    marks.arm(TOKEN, (time.monotonic_ns() // 1_000_000) + 60_000)
    outcome = forward_block(node, burst)
    assert outcome.sent == {0: [node.wrapped(data)[1] for data in burst]}
    assert node.tables.totals().events["flow_new"] - before.events["flow_new"] == 7
    record = marks.find(TOKEN)
    assert record
    assert not record.known


def test_two_that_bear_one_token_are_both_found(node: Bench, marks: Marks) -> None:
    marks.arm(TOKEN, (time.monotonic_ns() // 1_000_000) + 60_000)
    forward_block(node, [marked(4, "udp"), marked(6, "tcp", port=86)])
    record = marks.find(TOKEN)
    assert record
    assert record.tx == 1, "the last one is told"
    with published(node.tables) as memory:
        assert memory.control.slots[0].live.sequence == 4


def test_nobody_looks_who_is_not_told_to(node: Bench, marks: Marks) -> None:
    data = marked(4, "tcp")
    marks.disarm()
    node.assert_forwarded(data, node.forward(data), [data[14:]])
    assert marks.find(TOKEN) is None
    marks.arm(TOKEN, NOW_MS + 1000)
    node.forward(data, now_ms=NOW_MS + 1000)
    assert marks.find(TOKEN) is None, "the time was over"
    node.forward(data, now_ms=NOW_MS + 999)
    assert marks.find(TOKEN)


def test_a_token_that_was_replaced_is_not_looked_for(node: Bench, marks: Marks) -> None:
    marks.arm(TOKEN[::-1], NOW_MS + 1000)
    node.forward(marked(4, "tcp"))
    assert marks.find(TOKEN) is None
    node.forward(marked(4, "tcp", MARK[:8] + TOKEN[::-1]))
    assert marks.find(TOKEN[::-1])
    assert marks.find(TOKEN) is None


def test_the_worker_that_took_it_is_told(node: Bench, marks: Marks) -> None:
    data = marked(4, "udp")
    node.forward(data, worker=1)
    record = marks.find(TOKEN)
    assert record
    assert (record.worker, record.known) == (1, False)
    marks.arm(TOKEN[::-1], NOW_MS + 1000)
    node.forward(marked(4, "udp", MARK[:8] + TOKEN[::-1]), worker=0)
    again = marks.find(TOKEN[::-1])
    assert again
    assert (again.worker, again.known) == (0, True), "the other worker's entry was found"


def test_a_worker_that_was_interrupted_in_writing_is_waited_for(node: Bench, marks: Marks) -> None:
    data = marked(4, "udp")
    node.forward(data)
    with published(node.tables) as memory:
        memory.control.slots[0].live.sequence += 1
        assert marks.find(TOKEN) is None, "its record may be torn"
        node.forward(data)
        assert memory.control.slots[0].live.sequence == 4
    assert marks.find(TOKEN)


DROPPED = {
    "no_vip": raw(IP(src="198.51.100.7", dst="203.0.113.1") / UDP(dport=84), Raw(MARK)),
    "no_service": marked(4, "tcp", port=85),
    "echo_answered": raw(ip(4), ICMP(type=8, chksum=WRONG), Raw(MARK)),
}


@pytest.mark.parametrize("reason", ["no_vip", "no_service", "echo_answered"])
def test_one_that_is_dropped_is_told_with_its_reason(
    node: Bench, marks: Marks, reason: str
) -> None:
    assert node.forward(DROPPED[reason]).drops == {reason: 1}
    record = marks.find(TOKEN)
    assert record
    assert (record.reason, record.service, record.backend, record.tx, record.known) == (
        reason, None, None, None, False,
    )  # fmt: skip


def watched(
    make_bench: BenchMaker, data: bytes, members: list[bench.Member], **options: str
) -> Found:
    node = make_bench(bench.one_service(members, VIP4, "udp", **options))
    with closing(Marks(node.tables.files()[0], 1)) as marks:
        marks.arm(TOKEN, NOW_MS + 1000)
        node.forward(data)
        record = marks.find(TOKEN)
    assert record
    return record


def test_a_service_without_backends_is_told(make_bench: BenchMaker) -> None:
    record = watched(make_bench, marked(4, "udp"), [])
    assert (record.reason, record.service, record.backend) == ("no_backend", 0, None)
    rejected = watched(make_bench, marked(4, "udp"), [], empty="reject")
    assert rejected.reason == "rejected"


def test_one_that_is_too_big_for_its_way_is_told_with_its_backend(make_bench: BenchMaker) -> None:
    narrow = [bench.member(4, 11, paths=[bench.path(4, 11, mtu=60)])]
    data = raw(ip(4, flags="DF"), UDP(dport=84, chksum=WRONG), Raw(MARK))
    record = watched(make_bench, data, narrow)
    assert (record.reason, record.backend, record.tx) == ("too_big", 0, 0)


@pytest.mark.parametrize("family", [4, 6])
def test_an_echo_request_is_found_at_a_backend(make_bench: BenchMaker, family: int) -> None:
    node = make_bench(bench.all_combinations(echo="backend"))
    echo = ICMP(type=8, chksum=WRONG) if family == 4 else ICMPv6EchoRequest(cksum=WRONG)
    with closing(Marks(node.tables.files()[0], 1)) as marks:
        marks.arm(TOKEN, NOW_MS + 1000)
        outcome = node.forward(raw(ip(family), echo, Raw(MARK)))
        record = marks.find(TOKEN)
    ((_pool, name),) = outcome.backends
    assert record
    assert (record.reason, backend_of(node, record), record.known) == ("none", name, False)


def test_unfinished_checksums_are_completed_as_ever(node: Bench, marks: Marks) -> None:
    """One that this machine sends to itself may come so; a mark is found in it, too."""
    data = frame(4, "udp", MARK)
    partial = offload(1, csum_start=34, csum_offset=6)
    assert node.forward(data, offload=partial).forwarded == 1
    assert marks.find(TOKEN)


READS = 40_000


def test_a_record_is_never_torn(node: Bench, marks: Marks) -> None:
    """One thread forwards two packets in turn, which differ in all that a record holds."""
    tokens = (TOKEN, TOKEN[::-1])
    frames = [marked(4, "tcp"), marked(6, "udp", MARK[:8] + tokens[1], port=86)]
    done = threading.Event()

    def forward() -> None:
        n = 0
        while not done.is_set():
            marks.arm(tokens[n % 2], NOW_MS + 2)
            node.worker.forward(frames[n % 2], now_ms=NOW_MS + n % 2)
            node.worker.sent(n % 2)
            n += 1

    with ThreadPoolExecutor(1) as thread:
        forwarding = thread.submit(forward)
        try:
            seen = {found for _ in range(READS) for t in tokens if (found := marks.find(t))}
        finally:
            done.set()
        forwarding.result()
    facts = {(found.at_ms - NOW_MS, found.tx, found.service) for found in seen}
    services = [node.choose(data)[0] for data in frames]
    slots = {key: slot for slot, key in node.tables.seats().services.items()}
    assert facts == {
        (n, n, slots[s.vip, s.protocol, s.port]) for n, s in enumerate(services)
    }  # fmt: skip


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_a_record_that_changes_while_it_is_read_is_refused(tmp_path: Path, compiler: str) -> None:
    """The same without Python between two reads."""
    assert_never_torn("torn_live", compiler, tmp_path)
