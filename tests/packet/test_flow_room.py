"""Who gives way when the flow table is full: nobody whose flow lives. And how much fits."""

import os
from pathlib import Path

import pytest

from tests.packet.bench import NOW_MS, Bench, BenchMaker
from tests.packet.streams import Flow, flows, send
from tests.packet.test_flows import HEAVY, SECOND, begin, chosen, members, state

ONE_BUCKET = 1  # flows: room for 1.5, in whole buckets of 4
WAYS = 4
WORKERS, HUGE_PAGE = 40, 2 << 20


@pytest.fixture
def small(make_bench: BenchMaker) -> Bench:
    """A flow table of one bucket: all flows are in each other's way."""
    return make_bench(state(members()), flows=ONE_BUCKET)


def kept(node: Bench, began: dict[Flow, str], now_ms: int = NOW_MS) -> list[bool]:
    """After a change that moves every flow which the flow table does not know."""
    after = state([*members(), *HEAVY])
    assert all(chosen(after, flow) != backend for flow, backend in began.items())
    node.publish(after)
    return [send(node.worker, f.packet("A"), now_ms) == b for f, b in began.items()]


def unconfirmed(node: Bench, flow: Flow, now_ms: int = NOW_MS) -> str:
    return send(node.worker, flow.packet("S"), now_ms)


def movable(count: int, first: int = 0x0B000000) -> list[Flow]:
    """Flows whose choice differs between the two states."""
    before, after = state(members()), state([*members(), *HEAVY])
    many = flows(2 * count, first=first)
    return [f for f in many if chosen(before, f) != chosen(after, f)][:count]


def test_a_full_bucket_is_counted_and_the_table_decides(small: Bench) -> None:
    *first, fifth = movable(WAYS + 1)
    began = begin(small, first)
    for _ in range(2):
        outcome = small.forward(fifth.packet())
        assert outcome.events == {"flow_new": 1, "flow_table_full": 1}
        assert list(outcome.backends) == [("p", chosen(state(members()), fifth))]
    assert kept(small, began) == [True] * WAYS


def test_the_oldest_unconfirmed_one_gives_way(small: Bench) -> None:
    many = movable(WAYS + 2)
    for second, flow in enumerate(many[:WAYS]):
        unconfirmed(small, flow, NOW_MS + second * SECOND)
    began = {flow: chosen(state(members()), flow) for flow in many}
    for flow in many[WAYS:]:
        outcome = small.forward(flow.packet("S"), now_ms=NOW_MS + WAYS * SECOND)
        assert outcome.events == {"flow_new": 1, "flow_evicted": 1}
    wanted = [*many[2:], *many[:2]]  # first those that are there: the others take places
    result = kept(small, {flow: began[flow] for flow in wanted}, NOW_MS + 5 * SECOND)
    assert result == [True] * WAYS + [False] * 2


def test_an_expired_one_gives_way_before_an_unconfirmed_one(small: Bench) -> None:
    many = movable(WAYS + 1)
    closing, *others = many
    send(small.worker, closing.packet("A"))
    send(small.worker, closing.packet("FA"))
    later = NOW_MS + 61 * SECOND
    for flow in others[:-1]:
        unconfirmed(small, flow, later)
    outcome = small.forward(others[-1].packet("S"), now_ms=later)
    assert outcome.events == {"flow_new": 1}, "nobody was evicted"


def test_the_second_packet_protects(small: Bench) -> None:
    protected, *flood = movable(60)
    began = begin(small, [protected])
    for flow in flood:
        unconfirmed(small, flow)
    assert kept(small, began) == [True]


@pytest.mark.parametrize("size", [512, 4096])
def test_a_flood_moves_no_established_flow(make_bench: BenchMaker, size: int) -> None:
    """10 times the flows in spoofed SYNs, 10 times in spoofed ACKs, then a table change."""
    established = movable(min(1000, size // 2))
    node = make_bench(state(members()), flows=size)
    began = begin(node, established)
    memory = [os.fstat(fd).st_size for fd in node.tables.files()]
    for flags, first in (("S", 0x20000000), ("A", 0x40000000)):
        for flow in flows(10 * size, first=first):
            node.worker.forward(flow.packet(flags))
        node.worker.sent(0)
    before = node.tables.totals()
    assert before.events["flow_evicted"] > 10 * size
    assert kept(node, began) == [True] * len(established)
    assert [os.fstat(fd).st_size for fd in node.tables.files()] == memory
    assert set(node.tables.totals().drops.values()) <= {0, before.drops["tx_ring_full"]}


@pytest.mark.parametrize("size", [1000, 20_000])
def test_as_many_live_flows_as_configured_fit(make_bench: BenchMaker, size: int) -> None:
    """At most 1 % find no room, at no more than 32 bytes a flow."""
    node = make_bench(state(members()), flows=size)
    region = os.fstat(node.tables.files()[3]).st_size - 65536
    assert region <= 32 * size
    for flow in flows(size):
        send(node.worker, flow.packet("S"))
        send(node.worker, flow.packet("A"))
    full = node.tables.totals().events["flow_table_full"]
    assert full <= 2 * size // 100, "both packets of a flow without room are counted"


def test_expired_flows_are_no_burden(make_bench: BenchMaker) -> None:
    """A table full of old flows takes as many new ones."""
    node = make_bench(state(members()), flows=1000)
    for flow in flows(1000):
        send(node.worker, flow.packet("A"))
        send(node.worker, flow.packet("A"))
    before, later = node.tables.totals(), NOW_MS + 901 * SECOND
    for flow in flows(1000, first=0x30000000):
        send(node.worker, flow.packet("A"), later)
        send(node.worker, flow.packet("A"), later)
    events = node.tables.totals().events
    assert events["flow_evicted"] == before.events["flow_evicted"]
    assert events["flow_table_full"] - before.events["flow_table_full"] <= 20


@pytest.mark.parametrize("size", [ONE_BUCKET, 1000, 87_380], ids=["64 B", "24 KB", "2 MiB"])
def test_a_worker_that_ends_leaves_no_address_space_behind(
    make_bench: BenchMaker, size: int
) -> None:
    """Room for huge pages is kept around flow tables, whether or not they end where a page ends."""
    node = make_bench(state(members()), flows=size)
    before = address_space()
    for _ in range(WORKERS):
        node.new_worker(0).close()
    assert address_space() - before < WORKERS * HUGE_PAGE // 4  # the allocator keeps some, once


def address_space() -> int:
    """Bytes that this process has mapped (proc(5), statm)."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
