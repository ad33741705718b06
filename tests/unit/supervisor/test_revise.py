"""Backends that register while a node runs: what is taken up, and what a reload makes of it."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from typing import Any

import pytest

from lbfwd.config import Config
from lbfwd.fleet.registration import Registration
from lbfwd.health.outcome import PASSED
from lbfwd.health.verdict import Verdict
from lbfwd.net import guard
from lbfwd.supervisor import reconcile
from lbfwd.supervisor.reconcile import Alarm, Parts, Reconciler
from lbfwd.supervisor.registry import Entry, Registry
from tests.unit.supervisor.build import config, hop, resolved
from tests.unit.supervisor.build import watch as make_watch
from tests.unit.supervisor.world import ETH1, Crew, Net, Ports, Tables, World

NEW = ip_address("10.0.0.3")
KEY = ("web", "new")
ETCD = '[etcd]\nendpoints = ["http://10.0.0.9:2379"]\n'
OTHER = '[[pool]]\nname = "other"\nbackends = [{ address = "10.0.0.1" }]\n'
OPEN = config(
    ("[[pool]]", f"{ETCD}{OTHER}[[pool]]"),
    ("[[service]]\nname = \"http\"", '[pool.register]\nallow = ["10.0.0.0/24"]\n'
     '[[service]]\nname = "http"'),
)  # fmt: skip


class Monitor:
    """Stands for the monitor; everybody passes."""

    async def apply(self, *_configs: object) -> None:
        pass

    async def judged(self) -> None:
        pass

    def verdicts(self) -> dict[Any, Verdict]:
        return {KEY: Verdict(True, 1.0, 0.0, PASSED, "")}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    async def nothing(*_arguments: object) -> bool:
        return False

    world = World()
    world.found[NEW] = resolved(hop(str(NEW), ETH1))
    monkeypatch.setattr(guard, "install", nothing)
    monkeypatch.setattr(guard, "missing", nothing)
    monkeypatch.setattr(reconcile, "SETTLE_S", 0.0)
    return world


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def reconciler(world: World, registry: Registry) -> Iterator[Reconciler]:
    with ThreadPoolExecutor(1) as thread:
        watch = make_watch(lambda: registry.said({}, lambda key, _address: key == KEY))
        watch._monitor = Monitor()  # type: ignore[assignment]
        known = Net(world), thread, Tables(world), thread, Crew(world), Ports(world), watch
        yield Reconciler(OPEN, Parts(*known, registry), Alarm())  # type: ignore[arg-type]


def come(registry: Registry, address: str = str(NEW)) -> None:
    said = Registration(address=ip_address(address), since=1.0)
    registry.put(KEY, Entry(said, "https", 1.0, 10.0, 10.0))


async def start(reconciler: Reconciler) -> None:
    await reconciler.prepare(reconciler.config)
    await reconciler.expose(reconciler.config)


def names(world: World) -> list[list[str]]:
    return [[member.name for member in pool.members] for pool in world.published[-1].pools]


def test_a_registration_is_published_and_other_pools_are_not_touched(
    reconciler: Reconciler, registry: Registry, world: World
) -> None:
    async def main() -> None:
        await start(reconciler)
        come(registry)
        await reconciler.revise()
        assert names(world) == [["10.0.0.1"], ["a", "b", "new"]]
        assert world.published[-1].pools[0] is world.published[0].pools[0]
        assert world.published[-1].services is world.published[0].services
        assert reconciler.base is OPEN
        config, generation = reconciler.config, reconciler.generation
        await reconciler.revise()
        assert (reconciler.config, reconciler.generation) == (config, generation)
        assert reconciler.config is config, "nothing has changed, so nothing is derived anew"
        registry.drop(KEY)
        await reconciler.revise()
        assert names(world) == [["10.0.0.1"], ["a", "b"]]

    asyncio.run(main())


def test_a_reload_keeps_who_has_registered(
    reconciler: Reconciler, registry: Registry, world: World
) -> None:
    async def main() -> None:
        await start(reconciler)
        come(registry)
        await reconciler.revise()
        new = OPEN.model_copy(update={"pools": tuple(p for p in OPEN.pools if p.name == "web")})
        await reconciler.apply(new)
        assert reconciler.base is new
        assert names(world) == [["a", "b", "new"]]

    asyncio.run(main())


def closed() -> Config:
    pools = tuple(pool.model_copy(update={"registration": None}) for pool in OPEN.pools)
    return OPEN.model_copy(update={"pools": pools})


def test_who_is_refused_by_a_reload_is_so_only_when_that_is_taken_up(
    reconciler: Reconciler, registry: Registry, world: World
) -> None:
    async def main() -> None:
        await start(reconciler)
        come(registry)
        await reconciler.revise()
        world.failing = {"publish"}
        with pytest.raises(Exception, match="publish"):
            await reconciler.apply(closed())
        assert registry.refused == {}
        world.failing = set()
        await reconciler.apply(closed())
        assert list(registry.refused) == [KEY]
        assert names(world)[1] == ["a", "b"]

    asyncio.run(main())


def test_who_was_registered_before_the_start_is_there_from_the_beginning(
    world: World, registry: Registry, reconciler: Reconciler
) -> None:
    come(registry)
    again = Reconciler(OPEN, reconciler._parts, Alarm())
    asyncio.run(start(again))
    assert [names(world), len(world.published)] == [[["10.0.0.1"], ["a", "b", "new"]], 1]
