"""The watch: judged anew is only what may have changed, and every change takes effect."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from lbfwd.config import Config
from lbfwd.health.outcome import PASSED, Outcome
from lbfwd.health.verdict import Verdict
from lbfwd.supervisor import watch as module
from lbfwd.supervisor.operations import Operation
from lbfwd.supervisor.watch import Watch
from tests.unit.supervisor.build import NoTunnel, config, until

A, B, OTHER = ("web", "a"), ("web", "b"), ("other", "c")
OTHER_POOL = """[[pool]]
name = "other"
all_down = "withdraw"
slow_start_s = 3600
backends = [{ name = "c", address = "10.0.0.3" }]
[pool.health]
type = "tcp"
via = "direct"
port = 80
[[service]]
name = "http"
"""
GOOD = Verdict(True, 1.0, 0.0, PASSED, "")
BAD = Verdict(False, 2.0, 2.0, Outcome("refused", "refused"), "tcp: refused")


class Monitor:
    """Stands for the monitor: says what it is told to."""

    def __init__(
        self, _tunnel: object, on_change: Callable[[frozenset[Any]], None], _on_outcome: object
    ) -> None:
        self.tell = on_change
        self.known = {A: GOOD, B: GOOD}
        self.applied: list[tuple[Config, Config | None]] = []

    def verdicts(self) -> dict[Any, Verdict]:
        return self.known

    async def apply(self, of: Config, running: Config | None = None) -> None:
        self.applied.append((of, running))

    async def judged(self) -> None:
        pass

    async def close(self) -> None:
        pass


def checked() -> Config:
    health = '[pool.health]\ntype = "tcp"\nport = 80\nhold_down_s = 1\n[[service]]\nname = "http"'
    return config(('[[service]]\nname = "http"', health))


@pytest.fixture
def operations() -> dict[Any, Operation]:
    return {}


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch, operations: dict[Any, Operation]) -> Watch:
    monkeypatch.setattr(module, "Monitor", Monitor)
    return Watch(NoTunnel(), lambda: dict(operations))  # type: ignore[arg-type]


def monitor(watch: Watch) -> Any:
    return watch._monitor


def conditions(watch: Watch) -> list[str]:
    return [watch.standings[key].condition for key in (A, B)]


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(work())


def test_what_may_have_changed_is_judged_anew(
    watch: Watch, operations: dict[Any, Operation]
) -> None:
    async def work() -> None:
        of = checked()
        await watch.judge(of, {})
        assert conditions(watch) == ["up", "up"]
        monitor(watch).known[B] = BAD
        await watch.judge(of, {})
        assert conditions(watch) == ["up", "up"], "nobody has said that something changed"
        monitor(watch).tell(frozenset({B}))
        await watch.judge(of, {})
        assert conditions(watch) == ["up", "down"]
        await watch.judge(of, {A: "no route"})
        assert watch.standings[A].reason == "no route"
        await watch.judge(of, {})
        operations[A] = Operation("drained", "ann", 5.0)
        await watch.judge(of, {})
        assert conditions(watch) == ["drained", "failed_open"]
        operations.clear()
        await watch.judge(of, {})
        assert conditions(watch) == ["up", "down"]

    run(work)


def test_a_configuration_that_was_not_taken_up_leaves_no_trace(watch: Watch) -> None:
    async def work() -> None:
        old, new = checked(), config()
        await watch.judge(old, {})
        monitor(watch).known[B] = BAD
        monitor(watch).tell(frozenset({B}))
        await watch.judge(old, {})
        before = watch.standings
        await watch.prepare(new, old)
        await watch.judge(new, {})
        assert conditions(watch) == ["up", "up"], "the new one has no checks"
        await watch.settle(old, taken_up=False)
        assert watch.standings == before
        await watch.judge(old, {})
        assert watch.standings == before
        assert monitor(watch).applied == [(new, old), (old, None)]

    run(work)


def test_a_pool_that_is_gone_is_not_looked_at_again_and_again(watch: Watch) -> None:
    async def work() -> None:
        with_pool = config(('[[service]]\nname = "http"\n', OTHER_POOL))
        monitor(watch).known[OTHER] = BAD
        await watch.judge(with_pool, {})
        monitor(watch).known[OTHER] = GOOD
        monitor(watch).tell(frozenset({OTHER}))
        await watch.judge(with_pool, {})
        assert watch.standings[OTHER].condition == "starting"
        assert watch._restless
        await watch.judge(config(), {})
        assert not watch._restless

    run(work)


def test_changes_and_time_lead_to_a_publication(watch: Watch) -> None:
    async def work() -> None:
        of, published = checked(), list[str]()

        async def republish() -> None:
            await watch.judge(of, {})
            published.append(conditions(watch)[1])

        await watch.judge(of, {})
        task = asyncio.create_task(watch.run(republish))
        monitor(watch).known[B] = BAD
        monitor(watch).tell(frozenset({B}))
        await until(lambda: published == ["down"])
        now = time.time()
        monitor(watch).known[B] = Verdict(True, now, now, PASSED, "")
        monitor(watch).tell(frozenset({B}))
        # Nobody tells of the end of the hold-down: it is looked for.
        await until(lambda: published[-1] == "up")
        assert published[1] == "down"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(work)
