"""Passes over stand-ins that write down what is done to them, in order."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lbfwd.config import Config
from lbfwd.net import guard
from lbfwd.net.resolve import Resolution
from lbfwd.supervisor import reconcile
from lbfwd.supervisor.alarm import Alarm
from lbfwd.supervisor.errors import SupervisorError
from lbfwd.supervisor.reconcile import Parts, Reconciler
from lbfwd.tables import TablesError
from tests.unit.supervisor.build import config, hop, link, resolved, until, watch
from tests.unit.supervisor.world import ETH1, A, B, Crew, Net, Ports, Tables, World


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()

    async def install(interfaces: list[str], vips: Any, _own: Any) -> None:
        world.do(f"guard {' '.join(interfaces)} {len(vips)}")
        world.guarded = True

    async def missing(_interfaces: Any, _vips: Any, _own: Any) -> bool:
        return not world.guarded

    monkeypatch.setattr(guard, "install", install)
    monkeypatch.setattr(guard, "missing", missing)
    monkeypatch.setattr(reconcile, "SETTLE_S", 0.0)
    monkeypatch.setattr(reconcile, "RETRY_S", 0.01)
    return world


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


Make = Callable[..., Reconciler]


@pytest.fixture
def make(world: World, thread: ThreadPoolExecutor) -> Make:
    def build(of: Config | None = None, alarm: Alarm | None = None) -> Reconciler:
        net, tables, crew, ports = Net(world), Tables(world), Crew(world), Ports(world)
        parts = Parts(net, thread, tables, thread, crew, ports, watch())  # type: ignore[arg-type]
        return Reconciler(of or config(), parts, alarm or Alarm())

    return build


async def start(reconciler: Reconciler) -> None:
    await reconciler.prepare(reconciler.config)
    await reconciler.expose(reconciler.config)


def test_packets_come_in_only_when_all_else_is_ready(make: Make, world: World) -> None:
    asyncio.run(start(make()))
    assert [d for d in world.done if d not in ("reclaim", "distrust")] == [
        "open", "align", "publish", "guard eth0 2", "steer", "admit 2",
    ]  # fmt: skip


def test_an_unchanged_network_is_published_once(make: Make, world: World) -> None:
    async def scenario() -> None:
        reconciler = make()
        await start(reconciler)
        await start(reconciler)
        assert reconciler.generation == 1

    asyncio.run(scenario())
    assert len(world.published) == 1


def test_rings_of_an_interface_that_is_gone_close_after_publishing(
    make: Make, world: World
) -> None:
    async def scenario() -> None:
        reconciler = make()
        await start(reconciler)
        del world.links["eth1"]
        world.found = {a: Resolution((), "its interface is gone") for a in (A, B)}
        world.done.clear()
        await start(reconciler)

    asyncio.run(scenario())
    done = [d for d in world.done if d.startswith(("publish", "align", "close"))]
    assert done == ["align", "publish", "align", "close eth1"]


def test_a_failing_reload_leaves_the_old_configuration_in_force(make: Make, world: World) -> None:
    async def scenario() -> None:
        alarm = Alarm()
        reconciler = make(alarm=alarm)
        await start(reconciler)
        new = config(("weight = 2", "weight = 5"))
        world.failing = {"publish"}
        with pytest.raises(TablesError):
            await reconciler.apply(new)
        assert reconciler.config == config()
        assert len(world.published) == 1
        world.failing = {"steer"}  # after the commit: it is taken back before anybody is told
        with pytest.raises(OSError, match="steer"):
            await reconciler.apply(new)
        assert len(world.published) == 3

    asyncio.run(scenario())
    weights = [forwarding.pools[0].members[0].weight for forwarding in world.published]
    assert weights == [2, 5, 2]


def test_a_ring_that_cannot_be_opened_fails_a_start_but_not_a_pass(
    make: Make, world: World
) -> None:
    async def scenario() -> None:
        alarm = Alarm()
        reconciler = make(alarm=alarm)
        world.failing = {"open"}
        with pytest.raises(SupervisorError, match="eth1: no memory"):
            await reconciler.prepare(reconciler.config)
        alarm.ring()
        task = asyncio.create_task(reconciler.run())
        await until(lambda: "admit 2" in world.done)
        task.cancel()
        await asyncio.wait({task})
        assert reconciler.state
        assert reconciler.state.unusable == dict.fromkeys(
            [("web", "a"), ("web", "b")], "no TX ring on eth1"
        )

    asyncio.run(scenario())


def test_a_guard_that_somebody_flushed_is_installed_again(make: Make, world: World) -> None:
    async def scenario() -> None:
        alarm = Alarm()
        reconciler = make(alarm=alarm)
        await start(reconciler)
        task = asyncio.create_task(reconciler.run())
        world.guarded = False
        alarm.ring(suspicious=True)
        await until(lambda: world.guarded)
        task.cancel()
        await asyncio.wait({task})

    asyncio.run(scenario())
    assert world.done.count("guard eth0 2") == 2


@pytest.mark.parametrize(("failures", "removed"), [(0, True), (2, True), (99, False)])
def test_the_guard_is_taken_away_though_nft_be_interrupted(
    make: Make, world: World, monkeypatch: pytest.MonkeyPatch, failures: int, removed: bool
) -> None:
    tries: list[int] = []

    async def remove() -> None:
        tries.append(1)
        if len(tries) <= failures:
            raise guard.GuardError("interrupted")
        world.guarded = False

    monkeypatch.setattr(guard, "remove", remove)

    async def scenario() -> None:
        reconciler = make()
        await reconciler.unguard()
        assert not tries  # nothing was put there
        await start(reconciler)
        await reconciler.unguard()

    asyncio.run(scenario())
    assert world.guarded is not removed


def test_new_backends_get_time_to_be_resolved(
    make: Make, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "SETTLE_S", 20.0)
    monkeypatch.setattr(reconcile, "SETTLE_POLL_S", 0.01)
    world.found[A] = Resolution((), "next hop 10.0.0.1 on eth1: neighbour INCOMPLETE")

    async def scenario() -> None:
        task = asyncio.create_task(start(make()))
        asyncio.get_running_loop().call_later(
            0.05, lambda: world.found.update({A: resolved(hop("10.0.0.1", ETH1))})
        )
        await task

    asyncio.run(scenario())
    (forwarding,) = world.published
    assert all(member.paths for member in forwarding.pools[0].members)


def test_the_loop_survives_what_it_does_not_know(make: Make, world: World) -> None:
    async def scenario() -> None:
        alarm = Alarm()
        reconciler = make(alarm=alarm)
        await start(reconciler)
        found, world.found = world.found, {}  # a KeyError in the middle of a pass
        task = asyncio.create_task(reconciler.run())
        alarm.ring()
        await asyncio.sleep(0)
        await until(lambda: bool(reconciler._failed))
        assert not task.done()
        world.found = found
        await until(lambda: not reconciler._failed)
        task.cancel()
        await asyncio.wait({task})

    asyncio.run(scenario())


def test_an_alarm_in_the_middle_of_a_pass_is_not_lost() -> None:
    async def scenario() -> bool:
        alarm = Alarm()
        alarm.take_suspicion()
        alarm.ring()
        await alarm.wait(20)
        alarm.ring(suspicious=True)  # while the pass runs
        async with asyncio.timeout(10):
            await alarm.wait(20)
        return alarm.take_suspicion()

    assert asyncio.run(scenario())


def test_a_cancellation_is_not_lost_to_an_alarm_at_the_same_time() -> None:
    async def scenario() -> bool:
        alarm = Alarm()
        waiting = asyncio.create_task(alarm.wait(60))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        alarm.ring()
        waiting.cancel()
        await asyncio.wait({waiting})
        return waiting.cancelled()

    assert asyncio.run(scenario())


def test_constant_alarms_do_not_keep_the_periodic_check_away(
    make: Make, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "PERIOD_S", 0.05)

    async def ring(alarm: Alarm) -> None:
        while True:
            alarm.ring()
            await asyncio.sleep(0.001)  # far more often than the check is due

    async def scenario() -> None:
        alarm = Alarm()
        reconciler = make(alarm=alarm)
        await start(reconciler)
        world.guarded = False
        tasks = [asyncio.create_task(ring(alarm)), asyncio.create_task(reconciler.run())]
        await until(lambda: world.guarded)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    asyncio.run(scenario())


def test_a_failing_reload_leaves_workers_and_rings_as_they_were(make: Make, world: World) -> None:
    settings = config().settings_by_cpu

    async def scenario() -> None:
        reconciler = make()
        reconciler._ports.reshape(settings, "hash")
        await start(reconciler)
        world.failing = {"publish"}
        other = 'cpus = [0, 1]\nring = "v2"\nfanout = "cpu"\nbusy_poll_us = 5'
        world.done.clear()
        with pytest.raises(TablesError):
            await reconciler.apply(config(("cpus = [0, 1]", other), ("weight = 2", "weight = 5")))
        assert reconciler._ports.shape == (settings, "hash")
        assert world.renewed[-1] == settings

    asyncio.run(scenario())
    assert len(world.renewed) == 2, "to the new settings, and back"


def test_rings_that_a_failing_reload_has_opened_are_closed_before_workers_are_replaced(
    make: Make, world: World
) -> None:
    """Else the descriptors that it lacked would lack to the workers, too. The first error stays."""
    another = link("eth7", 7)

    async def scenario() -> None:
        reconciler = make()
        await start(reconciler)
        world.links["eth7"] = another
        world.failing = {"publish"}
        world.done.clear()
        with pytest.raises(TablesError, match="publish"):
            await reconciler.apply(
                config(('["eth0"]', '["eth0", "eth7"]'), ("weight = 2", "weight = 5"))
            )
        assert [ring.link.name for ring in world.rings] == ["eth0", "eth1"]

    asyncio.run(scenario())
    assert world.done.index("close eth7") < world.done.index("renew", 1)


def test_settings_that_a_worker_could_not_be_given_back_are_tried_again(
    make: Make, world: World
) -> None:
    """Each pass does, behind all that forwarding needs."""

    async def scenario() -> None:
        reconciler = make()
        await start(reconciler)
        world.failing = {"renew"}
        world.done.clear()
        assert await reconciler._pass() == ("renew",)
        assert world.done[-1] == "renew"
        world.failing = set()
        assert await reconciler._pass() == ()

    asyncio.run(scenario())
    assert world.renewed == [config().settings_by_cpu]
