"""Publishing: whole or not at all, seen by workers, memory reused only when nobody looks."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lbfwd import ring, shared
from lbfwd.forwarding import Forwarding
from lbfwd.tables import FILES, Count, Tables, TablesError
from tests.packet import bench
from tests.packet.bench import Bench, BenchMaker
from tests.packet.crafted import frame
from tests.packet.memory import published

TCP4 = frame(4, "tcp")
WEB = bench.service(bench.VIP4, "tcp", 84, "p")
DNS = bench.service(bench.VIP4, "udp", 53, "p")


def state(*numbers: int, size: int = 251, **weights: int) -> Forwarding:
    members = [bench.member(4, n, weights.get(f"b{n}", 1)) for n in numbers]
    return bench.forwarding([WEB], [bench.pool("p", members, size)])


@pytest.fixture
def tables(tmp_path: Path) -> Iterator[Tables]:
    tables = Tables.create(tmp_path, 2, 1024)
    yield tables
    tables.close(unlink=True)


# ---- files ----


def test_the_files_are_private_and_of_the_right_size(tables: Tables, tmp_path: Path) -> None:
    assert sorted(os.listdir(tmp_path)) == sorted(FILES)
    for name in FILES:
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert (tmp_path / "control").stat().st_size == shared.CONTROL_BYTES
    assert (tmp_path / "counters").stat().st_size == 2 * shared.COUNTERS_BYTES


def test_files_of_an_earlier_life_are_left_to_who_maps_them(tmp_path: Path) -> None:
    """They are replaced, not truncated; a symbolic link is replaced, not followed."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "control").symlink_to(victim)
    (tmp_path / "arena").write_bytes(b"old")
    with (tmp_path / "arena").open("rb") as old:
        Tables.create(tmp_path, 1, 1024).close(unlink=True)
        assert old.read() == b"old"
    assert victim.read_bytes() == b"precious"
    assert os.listdir(tmp_path) == ["victim"]


def test_closing_keeps_the_files_unless_told(tmp_path: Path) -> None:
    Tables.create(tmp_path, 1, 1024).close(unlink=False)
    assert sorted(os.listdir(tmp_path)) == sorted(FILES)


@pytest.mark.parametrize("workers", [-1, 0, 65])
def test_the_number_of_workers_is_checked(tmp_path: Path, workers: int) -> None:
    with pytest.raises(ValueError, match=f"{workers} workers: 1 to 64"):
        Tables.create(tmp_path, workers, 1024)
    assert os.listdir(tmp_path) == []


def test_no_such_directory(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Tables.create(tmp_path / "nowhere", 1, 1024)


# ---- publishing ----


def test_generations_count_from_1(tables: Tables) -> None:
    assert tables.generation == 0
    assert [tables.publish(state(11)) for _ in range(3)] == [1, 2, 3]
    assert tables.generation == 3


def test_a_worker_acknowledges_what_it_uses(make_bench: BenchMaker) -> None:
    node = make_bench(state(11))
    node.forward(TCP4)
    assert node.tables.slot(0).acknowledged == 1
    node.publish(state(12))
    assert node.tables.slot(0).acknowledged == 1
    node.assert_forwarded(TCP4, node.forward(TCP4), [TCP4[14:]])
    assert node.tables.slot(0).acknowledged == 2


def set_slot(tables: Tables, quiescent: int, acknowledged: int) -> None:
    """A worker in the middle of a burst, or waiting."""
    with published(tables) as memory:
        memory.control.slots[0].quiescent = quiescent
        memory.control.slots[0].acknowledged = acknowledged


def test_when_a_generation_counts_as_acknowledged(tables: Tables) -> None:
    tables.publish(state(11))
    assert not tables.acknowledged(1, [0]), "a worker that has said nothing"
    assert tables.acknowledged(1, []), "nobody is there"
    set_slot(tables, quiescent=0, acknowledged=1)
    assert tables.acknowledged(1, [0])
    assert not tables.acknowledged(2, [0])
    assert not tables.acknowledged(1, [0, 1])
    set_slot(tables, quiescent=1, acknowledged=0)
    assert tables.acknowledged(2, [0]), "who waits refers to none"


def extents(tables: Tables) -> dict[int, bytes]:
    """Every used place of the arena, with what is in it."""
    _control, arena, *_others = tables.files()
    return {at: os.pread(arena, size, at) for at, size in tables._arena._used.items()}


def test_memory_that_a_worker_may_look_at_is_not_touched(tables: Tables) -> None:
    tables.publish(state(11))
    set_slot(tables, quiescent=0, acknowledged=1)
    old = extents(tables)
    for number in range(12, 20):
        tables.publish(state(number))
        tables.reclaim([0])
    assert old.items() <= extents(tables).items()


def test_memory_nobody_looks_at_is_used_again(tables: Tables) -> None:
    tables.publish(state(11))
    tables.publish(state(12))
    set_slot(tables, quiescent=0, acknowledged=2)
    assert len(extents(tables)) == 6, "a table, a pool's block and a snapshot each"
    tables.reclaim([0])
    assert len(extents(tables)) == 3
    set_slot(tables, quiescent=1, acknowledged=2)
    sizes = set()
    for number in range(200):
        tables.publish(state(11 + number % 7, size=65537))
        tables.reclaim([0])
        sizes.add(tables._arena.size)
    assert len(sizes) == 1
    assert len(extents(tables)) == 3


def test_equal_tables_are_stored_once(tables: Tables) -> None:
    """Two pools that agree, over several reloads, in whatever order of the file."""
    first = [bench.member(4, n) for n in (11, 12, 13)]
    moved = [replace(m, paths=(bench.path(4, 99),)) for m in reversed(first)]
    both = bench.forwarding(
        [bench.service(bench.VIP4, "tcp", port, f"p{port}") for port in (1, 2, 3)],
        [bench.pool("p1", first), bench.pool("p2", moved), bench.pool("p3", first[:2])],
    )
    offsets = set()
    for _ in range(3):
        tables.publish(both)
        with published(tables) as memory:
            rows = [memory.services[n] for n in range(memory.snapshot.service_slots)]
            found = {row.port: row.table_offset for row in rows if row.protocol}
        assert found[1] == found[2] != found[3]
        offsets |= set(found.values())
    assert len(offsets) == 2


def test_an_arena_that_grew_is_mapped_anew(make_bench: BenchMaker) -> None:
    node = make_bench(state(11))
    node.forward(TCP4)
    small = node.tables._arena.size
    node.publish(
        bench.forwarding(
            [WEB], [*state(12).pools, bench.pool("q", [bench.member(4, 13)], size=655373)]
        )
    )
    assert node.tables._arena.size > small
    node.assert_forwarded(TCP4, node.forward(TCP4), [TCP4[14:]])


def test_workers_go_on_when_the_owner_has_closed(tmp_path: Path) -> None:
    tables = Tables.create(tmp_path, 1, 1024)
    tables.publish(state(11))
    files = [os.dup(fd) for fd in tables.files()]  # a worker has descriptors of its own
    tables.close(unlink=True)
    worker = ring.Worker(0, *files)
    worker.add_tx(0, -1, ring.tx_geometry(64, bench.MTU))
    worker.forward(TCP4)
    assert len(worker.sent(0)) == 1
    worker.close()
    for fd in files:
        os.close(fd)


# ---- failure ----


def everything(tables: Tables) -> tuple[Any, ...]:
    with published(tables) as memory:
        word, size = memory.control.published, memory.control.arena_bytes
    return (
        word,
        size,
        tables.generation,
        tables.totals(),
        extents(tables),
        dict(tables._pools._tables),
    )


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("pwrite", 0),
        ("pwrite", 1),
        ("pwrite", 2),
        ("pwrite", 3),
        ("pwrite", 6),
        ("pwrite", 9),
        ("ftruncate", 0),
        ("ftruncate", 1),
    ],
)
def test_a_full_file_system_changes_nothing(
    make_bench: BenchMaker, monkeypatch: pytest.MonkeyPatch, name: str, call: int
) -> None:
    """Whichever of a publication's writes and growths fails."""
    node = make_bench(state(11, 12))
    node.forward(TCP4)
    before = everything(node.tables)
    larger = bench.forwarding(
        [WEB, replace(DNS, pool="q")],
        [
            bench.pool("p", [bench.member(4, 13)]),
            bench.pool("q", [bench.member(4, 14)], size=655373),
            bench.pool("unused", [bench.member(4, 15)], size=1500007),
        ],
    )
    with monkeypatch.context() as patch:
        patch.setattr(os, name, failing(getattr(os, name), call))
        with pytest.raises(TablesError, match=r"generation 2 was not published: .*No space left"):
            node.tables.publish(larger)
    assert everything(node.tables) == before
    node.assert_forwarded(TCP4, node.forward(TCP4), [TCP4[14:]])
    assert node.publish(larger) == 2
    node.assert_forwarded(TCP4, node.forward(TCP4), [TCP4[14:]])


def failing(function: Callable[..., Any], call: int) -> Callable[..., Any]:
    calls = 0

    def fail(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call + 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return function(*arguments)

    return fail


def wrong_path() -> Forwarding:
    """An outer source of the other family."""
    hop = replace(bench.path(4, 11), source=bench.NODE[6])
    return bench.forwarding([WEB], [bench.pool("p", [bench.member(4, 11, paths=[hop])])])


def wrong_ring() -> Forwarding:
    hop = bench.path(4, 11, tx=ring.MAX_TX)
    return bench.forwarding([WEB], [bench.pool("p", [bench.member(4, 11, paths=[hop])])])


def no_ring_number() -> Forwarding:
    hop = bench.path(4, 11, tx=256)
    return bench.forwarding([WEB], [bench.pool("p", [bench.member(4, 11, paths=[hop])])])


def no_pool() -> Forwarding:
    return bench.forwarding([replace(WEB, pool="q")], [bench.pool("p", [bench.member(4, 11)])])


@pytest.mark.parametrize("bad", [wrong_path, wrong_ring, no_ring_number, no_pool])
def test_a_state_that_cannot_be_changes_nothing(
    make_bench: BenchMaker, bad: Callable[[], Forwarding]
) -> None:
    node = make_bench(state(11, 12))
    node.forward(TCP4)
    before = everything(node.tables)
    with pytest.raises(TablesError, match="generation 2 was not published: "):
        node.tables.publish(bad())
    assert everything(node.tables) == before
    node.assert_forwarded(TCP4, node.forward(TCP4), [TCP4[14:]])


# ---- counters and slots over reloads ----


def test_who_stays_keeps_its_counters(make_bench: BenchMaker) -> None:
    node = make_bench(state(11))
    node.forward(*[TCP4] * 3)
    size = len(TCP4) - 14
    node.publish(
        bench.forwarding([DNS, WEB], [bench.pool("p", [bench.member(4, n) for n in (9, 11)])])
    )
    totals = node.tables.totals()
    assert totals.services == {DNS.name: Count(0, 0, 0), WEB.name: Count(3, 3 * size, 1)}
    assert totals.backends == {
        ("p", "b9"): Count(0, 0, 0),
        ("p", "b11"): Count(3, 3 * size, 1),
    }


def test_who_comes_back_begins_at_0(make_bench: BenchMaker) -> None:
    node = make_bench(state(11))
    node.forward(*[TCP4] * 3)
    node.publish(state(12))
    node.publish(state(11))
    assert node.tables.totals().backends == {("p", "b11"): Count(0, 0, 0)}
    assert node.tables.totals().services[WEB.name].packets == 3
    node.forward(TCP4)
    assert node.tables.totals().backends == {("p", "b11"): Count(1, len(TCP4) - 14, 1)}


def test_another_address_is_another_backend(make_bench: BenchMaker) -> None:
    node = make_bench(state(11))
    node.forward(TCP4)
    moved = replace(bench.member(4, 12), name="b11")
    node.publish(bench.forwarding([WEB], [bench.pool("p", [moved])]))
    assert node.tables.totals().backends == {("p", "b11"): Count(0, 0, 0)}


def incarnations(tables: Tables) -> list[tuple[int, int]]:
    with published(tables) as memory:
        rows = [memory.backends[n] for n in range(memory.snapshot.backends)]
        return [(row.path_count, row.incarnation) for row in rows]


def test_a_reused_slot_has_another_incarnation(tables: Tables) -> None:
    tables.publish(state(11, 12))
    assert incarnations(tables) == [(1, 1), (1, 1)]
    tables.publish(state(12))
    assert incarnations(tables) == [(0, 0), (1, 1)]
    tables.publish(state(12, 13))
    assert incarnations(tables) == [(1, 2), (1, 1)]


def test_counters_of_all_workers_are_summed(tables: Tables) -> None:
    tables.publish(state(11))
    workers = [ring.Worker(slot, *tables.files()) for slot in range(2)]
    for number, worker in enumerate(workers):
        worker.add_tx(0, -1, ring.tx_geometry(64, bench.MTU))
        for _ in range(number + 1):
            worker.forward(TCP4)
            worker.forward(TCP4[:20])
        worker.sent(0)
    totals = tables.totals()
    assert totals.services[WEB.name].packets == totals.backends["p", "b11"].packets == 3
    assert totals.drops["truncated"] == 3
    assert [tables.slot(n).seen for n in range(2)] == [2, 4]
    for worker in workers:
        worker.close()


def test_totals_before_the_first_generation(tables: Tables) -> None:
    totals = tables.totals()
    assert totals.services == {}
    assert totals.backends == {}
    assert set(totals.drops) == set(ring.DROP_REASONS[1:])
    assert set(totals.drops.values()) == {0}


def test_a_successor_counts_on(make_bench: BenchMaker) -> None:
    node: Bench = make_bench(state(11))
    node.forward(TCP4)
    node.worker.close()
    node.workers[0] = ring.Worker(0, *node.tables.files())
    node.worker.add_tx(0, -1, ring.tx_geometry(64, bench.MTU))
    node.assert_forwarded(TCP4, node.forward(TCP4), [TCP4[14:]])
    assert node.tables.totals().services[WEB.name].packets == 2
