"""Workers read each other's flow tables, while those are written."""

import multiprocessing
import os
import time
from pathlib import Path

import pytest

from tests.oracle import fragments
from tests.packet import quoted
from tests.packet.bench import NOW_MS, Bench, BenchMaker
from tests.packet.hammer import forward_in_turn
from tests.packet.streams import Flow, send
from tests.packet.test_flow_room import movable
from tests.packet.test_flows import HEAVY, SECOND, begin, chosen, members, state
from tests.packet.torn import assert_never_torn

DEADLINE_S = 30
FOUND = 3000  # look-ups that met the other flow's entry
HEADER = 65536


@pytest.fixture
def two(make_bench: BenchMaker) -> Bench:
    return make_bench(state(members()), workers=2)


def change(node: Bench) -> None:
    node.publish(state([*members(), *HEAVY]))


def test_a_flow_is_found_in_another_workers_table(two: Bench) -> None:
    """As after a change of the worker set; from then on the finder has an entry of its own."""
    for flow in movable(50):
        two.publish(state(members()))
        (mine,) = begin(two, [flow]).values()
        change(two)
        outcome = two.forward(flow.packet(), worker=1)
        assert list(outcome.backends) == [("p", mine)]
        assert outcome.events == {"flow_found_elsewhere": 1}
        outcome = two.forward(flow.packet(), worker=1)
        assert list(outcome.backends) == [("p", mine)]
        assert outcome.events == {}


def test_a_bare_syn_is_not_looked_up_elsewhere(two: Bench) -> None:
    """It begins a flow, and there are many of them in a flood."""
    flow = movable(1)[0]
    begin(two, [flow])
    change(two)
    outcome = two.forward(flow.packet("S"), worker=1)
    assert list(outcome.backends) == [("p", chosen(state([*members(), *HEAVY]), flow))]
    assert outcome.events == {"flow_new": 1}


def test_a_syn_ack_is(two: Bench) -> None:
    flow = movable(1)[0]
    (mine,) = begin(two, [flow]).values()
    change(two)
    assert two.backend_of(flow.packet("SA"), worker=1) == mine


def test_what_another_worker_finds_may_not_serve(two: Bench) -> None:
    flow = movable(1)[0]
    (mine,) = begin(two, [flow]).values()
    two.publish(state([m for m in members() if m.name != mine]))
    outcome = two.forward(flow.packet(), worker=1)
    assert outcome.events == {"flow_new": 1}
    assert list(outcome.backends) != [("p", mine)]


def test_nor_what_has_expired(two: Bench) -> None:
    flow = movable(1)[0]
    begin(two, [flow])
    change(two)
    outcome = two.forward(flow.packet(), worker=1, now_ms=NOW_MS + 901 * SECOND)
    assert outcome.events == {"flow_new": 1}


def test_a_closing_flow_is_closing_elsewhere_too(two: Bench) -> None:
    flow = movable(1)[0]
    (mine,) = begin(two, [flow]).values()
    two.forward(flow.packet("FA"))
    change(two)
    assert two.backend_of(flow.packet("A"), worker=1) == mine
    outcome = two.forward(flow.packet("S"), worker=1)
    assert outcome.events == {"flow_new": 1}


def test_fragments_and_errors_of_a_flow_reach_any_worker(two: Bench) -> None:
    """And have the backend of the flow's latest packet, not of an entry that was left behind."""
    for n, flow in enumerate(movable(30)):
        two.publish(state(members()))
        (mine,) = begin(two, [flow]).values()
        change(two)
        stray = [quoted.error(4, flow.answer()), *long_packet(flow, n)]
        assert two.backend_of(*stray, worker=1) == mine
        assert two.backend_of(flow.packet()) == mine


def long_packet(flow: Flow, identification: int) -> list[bytes]:
    """The frames of the fragments of a packet of the flow."""
    data = flow.packet()
    packet = bytearray(data[14:] + bytes(999))
    packet[2:6] = len(packet).to_bytes(2, "big") + identification.to_bytes(2, "big")
    return [data[:14] + part for part in fragments.split(bytes(packet), 576)]


def test_a_flow_that_went_over_to_another_worker(two: Bench) -> None:
    """The first worker's entry is older, and its backend no longer the flow's."""
    flow = movable(1)[0]
    begin(two, [flow])
    change(two)
    later = NOW_MS + 10 * SECOND
    now = two.backend_of(flow.packet("S"), worker=1, now_ms=later)
    assert now == chosen(state([*members(), *HEAVY]), flow)
    assert two.backend_of(quoted.error(4, flow.answer()), now_ms=later) == now


def test_a_successor_has_the_flows_of_the_one_that_died(two: Bench) -> None:
    many = movable(50)
    began = begin(two, many)
    change(two)
    two.workers[0].close()
    two.workers[0] = two.new_worker(0)
    assert {flow: send(two.worker, flow.packet()) for flow in many} == began


def test_a_worker_writes_its_own_table_only(two: Bench) -> None:
    fd = two.tables.files()[3]
    region = (os.fstat(fd).st_size - HEADER) // 2
    begin(two, movable(50))
    first = os.pread(fd, region, HEADER)
    change(two)
    for flow in movable(50):
        two.forward(flow.packet(), worker=1)
        two.forward(quoted.error(4, flow.answer()), worker=1)
    assert os.pread(fd, region, HEADER) == first
    assert any(os.pread(fd, region, HEADER + region))


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_an_entry_is_never_read_torn(tmp_path: Path, compiler: str) -> None:
    """Two threads on one bucket."""
    assert_never_torn("torn", compiler, tmp_path)


def test_never_another_flows_backend(make_bench: BenchMaker, tmp_path: Path) -> None:
    """The same with whole workers: a process rewrites the bucket, another looks errors up."""
    node = make_bench(state(members()), workers=2, flows=1)
    by_backend = {chosen(state(members()), flow): flow for flow in movable(60)}
    assert len(by_backend) == len(members()), "more than a bucket has ways"
    frames = [flow.packet("S") for flow in by_backend.values()]
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=forward_in_turn, args=(tmp_path / "node0", 0, frames, theirs)
    )
    process.start()
    try:
        assert ours.poll(DEADLINE_S), "the writer did not come up"
        assert ours.recv() == "ready"
        read_until_found(node, by_backend)
        ours.send("enough")
        assert ours.poll(DEADLINE_S), "the writer is silent"
        assert ours.recv() > 0
    finally:
        process.kill()
        process.join()


def read_until_found(node: Bench, by_backend: dict[str, Flow]) -> None:
    errors = {backend: quoted.error(4, flow.answer()) for backend, flow in by_backend.items()}
    end = time.monotonic() + DEADLINE_S
    while node.tables.totals().events["flow_found_elsewhere"] < FOUND:
        assert time.monotonic() < end, "too few look-ups met an entry"
        for _ in range(200):
            for backend, data in errors.items():
                assert send(node.workers[1], data) == backend
