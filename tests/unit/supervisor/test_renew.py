"""Workers that are replaced on purpose: one at a time, the successor there before the end."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from lbfwd.config import WorkerSettings
from lbfwd.supervisor import process
from lbfwd.supervisor.errors import WorkerError
from tests.unit.supervisor.test_workers import Play, Stage, gone, play, running

__all__ = ["play"]

OLD = {0: WorkerSettings(busy_poll_us=7), 1: WorkerSettings(ring="v2")}
Scenario = Callable[[Stage], Awaitable[None]]


def kept(scenario: Scenario) -> Scenario:
    """The scenario while the crew replaces whoever dies."""

    async def whole(stage: Stage) -> None:
        await running(stage, lambda: scenario(stage))

    return whole


def orders(stage: Stage) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stage.log.read_text().splitlines()]


def test_each_gets_a_successor_with_its_settings(play: Play) -> None:
    new = {3: WorkerSettings(busy_poll_us=50), 1: WorkerSettings(ring="v2", busy_poll_us=9)}

    @kept
    async def scenario(stage: Stage) -> None:
        await stage.crew.align((stage.ring("rx", 0),))
        before = [slot.pid for slot in stage.crew.slots]
        await stage.crew.renew(new)
        assert all(gone(pid) for pid in before if pid)
        assert stage.crew.running() == {0, 1}
        assert [(slot.cpu, slot.settings) for slot in stage.crew.slots] == list(new.items())
        assert [slot.restarts for slot in stage.crew.slots] == [0, 0]

    stage = play("obey", scenario)
    assert stage.orders(0) == ["hello", "start", "add_rx0", "go"]
    pids = {e["pid"]: e for e in orders(stage) if e["op"] == "start"}
    assert [(e["slot"], e["cpu"], e["busy_poll_us"]) for e in pids.values()][2:] == [
        (0, 3, 50),
        (1, 1, 9),
    ]
    first = [e["op"] for e in orders(stage)].index("hello")
    later = [e["pid"] for e in orders(stage)[first:]]
    assert later == sorted(later, key=later.index), "the second begins when the first is done"


def test_another_ring_needs_no_other_process(play: Play) -> None:
    new = {0: WorkerSettings(busy_poll_us=7, ring="v2"), 1: WorkerSettings(rx_ring_mib=8)}

    @kept
    async def scenario(stage: Stage) -> None:
        before = [slot.pid for slot in stage.crew.slots]
        await stage.crew.renew(new)
        assert [slot.pid for slot in stage.crew.slots] == before
        assert [slot.settings for slot in stage.crew.slots] == list(new.values())

    play("obey", scenario)


@pytest.mark.parametrize("manner", ["exit hello", "mute hello"])
def test_a_successor_that_does_not_come_up_changes_nothing(
    play: Play, monkeypatch: pytest.MonkeyPatch, manner: str
) -> None:
    @kept
    async def scenario(stage: Stage) -> None:
        monkeypatch.setattr(process, "START_S", 0.5)
        before = [slot.pid for slot in stage.crew.slots]
        with pytest.raises(WorkerError, match=r"worker 0 \(cpu 0\): hello: "):
            await stage.crew.renew({0: WorkerSettings(), 1: WorkerSettings()})
        assert [slot.pid for slot in stage.crew.slots] == before
        assert [(slot.cpu, slot.settings) for slot in stage.crew.slots] == list(OLD.items())
        assert all(slot.heir is None for slot in stage.crew.slots)

    play(manner, scenario)


def test_when_a_later_one_fails_the_first_has_its_old_settings_again(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    @kept
    async def scenario(stage: Stage) -> None:
        appear = process.WorkerProcess.appear

        async def refuse_some(self: process.WorkerProcess) -> None:
            if self._orders.cpu == 5:
                raise WorkerError("no such cpu")
            await appear(self)

        monkeypatch.setattr(process.WorkerProcess, "appear", refuse_some)
        with pytest.raises(WorkerError, match=r"worker 1 \(cpu 5\): no such cpu"):
            await stage.crew.renew({4: WorkerSettings(), 5: WorkerSettings()})
        assert [(slot.cpu, slot.settings) for slot in stage.crew.slots] == list(OLD.items())
        assert stage.crew.running() == {0, 1}

    stage = play("obey", scenario)
    starts = [(e["slot"], e["cpu"]) for e in orders(stage) if e["op"] == "start"]
    assert starts[2:] == [(0, 4), (0, 0)]


def test_none_is_left_when_the_crew_stops(play: Play) -> None:
    pids: list[int] = []

    async def scenario(stage: Stage) -> None:
        await stage.crew.start()
        slot = stage.crew.slots[0]
        slot.heir = stage.crew._process(0, 0, WorkerSettings())
        await slot.heir.appear()
        assert slot.heir.identity is not None
        pids.append(slot.heir.identity.pid)
        assert not gone(pids[0])

    play("obey", scenario)
    assert gone(pids[0])
