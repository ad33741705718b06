"""Worker processes: real ones, that do as the test says instead of forwarding."""

import asyncio
import itertools
import json
import os
import signal
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lbfwd.config import WorkerSettings
from lbfwd.ring import Geometry
from lbfwd.supervisor import process, workers
from lbfwd.supervisor.errors import WorkerError
from lbfwd.supervisor.process import Attachment, describe_exit
from lbfwd.supervisor.runtime import ProcessId
from lbfwd.supervisor.workers import Crew, delay_after
from tests.unit.supervisor import fake_worker
from tests.unit.supervisor.build import until

DEADLINE_S = 30.0
GEOMETRY = Geometry(version=3, block_bytes=65536, blocks=2, frame_bytes=2048, retire_ms=1)
OTHER = Geometry(version=2, block_bytes=65536, blocks=3, frame_bytes=2048)


@dataclass
class SlotView:
    heartbeat: int


@dataclass
class FakeTables:
    """Files that nobody maps; heartbeats that move, except those of ``stuck`` slots."""

    fds: tuple[int, int, int]
    stuck: set[int] = field(default_factory=set)
    beats: Iterator[int] = field(default_factory=itertools.count)

    def files(self) -> tuple[int, ...]:
        return self.fds

    def slot(self, number: int) -> SlotView:
        return SlotView(0 if number in self.stuck else next(self.beats))


class FakeRuntime:
    recorded: tuple[ProcessId, ...] = ()

    def record(self, workers: Iterable[ProcessId]) -> None:
        self.recorded = tuple(workers)


@dataclass
class Stage:
    crew: Crew
    tables: FakeTables
    runtime: FakeRuntime
    log: Path
    fd: int
    changes: list[frozenset[int]]

    def ring(self, kind: Any, index: int) -> Attachment:
        return Attachment(kind, index, (GEOMETRY, OTHER), (self.fd, self.fd))

    def orders(self, slot: int) -> list[str]:
        """What the worker of a slot was told, by its last process."""
        entries = [json.loads(line) for line in self.log.read_text().splitlines()]
        pid = next(e["pid"] for e in reversed(entries) if e.get("slot") == slot)
        names = [(e["op"], e.get("index", "")) for e in entries if e["pid"] == pid]
        return [f"{op}{index}" for op, index in names]


Play = Callable[..., Stage]


@pytest.fixture
def play(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str, Callable[[Stage], Awaitable[None]]], Stage]]:
    """``play(manner, scenario)``: run a scenario with a crew of two, then stop the crew."""
    fd = os.open(os.devnull, os.O_RDONLY)
    monkeypatch.setattr("lbfwd.workers.forward.main", fake_worker.main)
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "orders"))

    def run(manner: str, scenario: Callable[[Stage], Awaitable[None]]) -> Stage:
        monkeypatch.setenv("FAKE_WORKER", manner)
        tables, runtime, changes = FakeTables((fd, fd, fd)), FakeRuntime(), []
        settings = {0: WorkerSettings(busy_poll_us=7), 1: WorkerSettings(ring="v2")}

        async def whole() -> Stage:
            crew = Crew(settings, tables, runtime, lambda: changes.append(crew.alive()))  # type: ignore[arg-type]
            stage = Stage(crew, tables, runtime, tmp_path / "orders", fd, changes)
            try:
                await scenario(stage)
            finally:
                await crew.stop()
            return stage

        return asyncio.run(asyncio.wait_for(whole(), 2 * DEADLINE_S))

    yield run
    os.close(fd)


async def running(stage: Stage, scenario: Callable[[], Awaitable[None]]) -> None:
    """Run a scenario while the crew replaces whoever dies."""
    await stage.crew.start()
    keeper = asyncio.create_task(stage.crew.run())
    try:
        async with asyncio.timeout(60):
            await scenario()
    finally:
        keeper.cancel()
        await asyncio.wait({keeper})


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_workers_start_with_their_orders_and_are_gone_at_the_end(play: Play) -> None:
    pids: list[int] = []

    async def scenario(stage: Stage) -> None:
        await stage.crew.start()
        assert stage.crew.running() == {0, 1}
        pids.extend(slot.pid for slot in stage.crew.slots if slot.pid)
        assert {worker.pid for worker in stage.runtime.recorded} == set(pids)

    stage = play("obey", scenario)
    assert len(set(pids)) == 2
    assert all(map(gone, pids))
    starts = [json.loads(line) for line in stage.log.read_text().splitlines()]
    starts = sorted((e for e in starts if e["op"] == "start"), key=lambda e: e["slot"])
    facts = [(e["slot"], e["cpu"], e["busy_poll_us"], e["fds"]) for e in starts]
    assert facts == [(0, 0, 7, 3), (1, 1, 0, 3)]
    assert {signal.SIGINT, signal.SIGHUP} <= set(starts[0]["blocked"])


def test_rings_are_handed_over_sending_first_and_taken_back_receiving_first(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.crew.start()
        old = (stage.ring("rx", 0), stage.ring("tx", 1))
        await stage.crew.align(old)
        await stage.crew.align(old)  # nothing to do
        await stage.crew.align((stage.ring("rx", 0), stage.ring("tx", 2)))  # rings made anew

    expected = "start go add_tx1 add_rx0 remove_rx0 remove_tx1 add_tx2 add_rx0"
    assert play("obey", scenario).orders(1) == expected.split()


def test_each_worker_learns_the_shape_of_its_own_ring(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.crew.start()
        await stage.crew.align((stage.ring("rx", 0),))

    stage = play("obey", scenario)
    entries = [json.loads(line) for line in stage.log.read_text().splitlines()]
    slots = {e["pid"]: e["slot"] for e in entries if e["op"] == "start"}
    shapes = {slots[e["pid"]]: e["geometry"] for e in entries if e["op"] == "add_rx"}
    assert shapes == {0: asdict(GEOMETRY), 1: asdict(OTHER)}


def test_a_successor_gets_the_same_rings_before_it_goes(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        async def die() -> None:
            await stage.crew.align((stage.ring("rx", 0), stage.ring("tx", 1)))
            slot = stage.crew.slots[0]
            first = slot.pid
            assert first
            os.kill(first, signal.SIGKILL)
            await until(lambda: slot.state == "running" and slot.pid != first)
            assert slot.restarts == 1
            assert stage.crew.slots[1].restarts == 0

        await running(stage, die)

    assert play("obey", scenario).orders(0) == ["start", "add_tx1", "add_rx0", "go"]


def test_a_worker_that_hangs_is_replaced(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "LOOK_S", 0.01)
    monkeypatch.setattr(workers, "HANG_S", 0.1)

    async def scenario(stage: Stage) -> None:
        async def hang() -> None:
            slot = stage.crew.slots[1]
            first = slot.pid
            assert first
            os.kill(first, signal.SIGSTOP)
            stage.tables.stuck.add(1)
            await until(lambda: slot.restarts == 1)
            stage.tables.stuck.clear()
            await until(lambda: slot.state == "running")
            assert gone(first)
            assert stage.crew.slots[0].restarts == 0

        await running(stage, hang)

    play("obey", scenario)


def test_a_slot_whose_workers_keep_dying_is_given_up_but_never_the_last(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        async def kill_until_abandoned() -> None:
            victim, other = stage.crew.slots
            while victim.state != "abandoned":
                if victim.state == "running" and victim.worker:
                    victim.worker.kill()
                await asyncio.sleep(0.01)  # between two looks
            assert victim.restarts == workers.DEATHS
            assert stage.changes[-1] == {1}
            assert stage.crew.alive() == {1}
            while other.restarts <= workers.DEATHS:
                if other.state == "running" and other.worker:
                    other.worker.kill()
                await asyncio.sleep(0.01)  # between two looks
            assert stage.crew.alive() == {1}

        await running(stage, kill_until_abandoned)

    play("obey", scenario)


@pytest.mark.parametrize(
    ("manner", "reason"),
    [
        ("refuse start", r"worker \d \(cpu \d\): start: no room"),
        ("exit go", r"worker \d \(cpu \d\): go: "),
        ("mute go", r"worker \d \(cpu \d\): go: no answer within 0.2 s"),
    ],
)
def test_a_start_that_fails_says_why(
    play: Play, monkeypatch: pytest.MonkeyPatch, manner: str, reason: str
) -> None:
    monkeypatch.setattr(process, "REPLY_S", 0.2)

    async def scenario(stage: Stage) -> None:
        with pytest.raises(WorkerError, match=reason):
            await stage.crew.start()

    play(manner, scenario)


def test_a_worker_that_refuses_a_ring_is_killed(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.crew.start()
        pids = [slot.pid for slot in stage.crew.slots]
        await stage.crew.align((stage.ring("tx", 1),))
        await until(lambda: all(gone_or_zombie(pid) for pid in pids if pid))

    play("refuse add_tx", scenario)


def gone_or_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize(
    ("ages_s", "others", "delay_s"),
    [
        ([0], True, 0.0),
        ([4, 3, 2, 1, 0], True, 0.0),  # five deaths: still at once
        ([5, 4, 3, 2, 1, 0], True, None),  # six within 30 s: given up
        ([40, 4, 3, 2, 1, 0], True, 0.0),  # the first is too long ago
        ([5, 4, 3, 2, 1, 0], False, 0.1),  # the last slot waits instead
        ([6, 5, 4, 3, 2, 1, 0], False, 0.2),
        ([1] * 30, False, 5.0),
    ],
)
def test_how_soon_a_worker_is_replaced(
    ages_s: list[float], others: bool, delay_s: float | None
) -> None:
    now = 1000.0
    assert delay_after([now - age for age in ages_s], now, others) == delay_s


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (0, "exited with status 0"),
        (3, "exited with status 3"),
        (-9, "killed by SIGKILL"),
        (-11, "killed by SIGSEGV"),
        (-40, "killed by signal 40"),
    ],
)
def test_an_end_is_told_in_words(code: int, text: str) -> None:
    assert describe_exit(code) == text
