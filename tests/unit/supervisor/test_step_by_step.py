"""Change after change: what the node has made of them is what it would make from nothing.

The whole way, with all that remembers on it: file, standings, reach, state, tables.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbfwd.config import Config, parse
from lbfwd.config.load import read
from lbfwd.config.once import Memo
from lbfwd.health import judge
from lbfwd.health.outcome import PASSED, Outcome
from lbfwd.health.verdict import Verdict
from lbfwd.net import guard
from lbfwd.net.resolve import Resolution
from lbfwd.supervisor import reconcile
from lbfwd.supervisor import watch as watching
from lbfwd.supervisor.alarm import Alarm
from lbfwd.supervisor.errors import SupervisorError
from lbfwd.supervisor.operations import Operation
from lbfwd.supervisor.reconcile import Parts, Reconciler
from lbfwd.supervisor.state import derive, unreachable
from lbfwd.supervisor.watch import Watch
from lbfwd.tables import Tables
from tests.unit.supervisor.build import NoTunnel, hop, resolved
from tests.unit.supervisor.test_watch import Monitor
from tests.unit.supervisor.world import ETH0, ETH1, Crew, Net, Ports, World
from tests.unit.test_incremental import found, new_tables

POOLS = ("p", "q", "r")
NAMES = ("a", "b", "c", "d", "e")
ADDRESSES = [ip_address(f"10.0.0.{n}") for n in range(1, 8)]
HEAD = 'hash_key = "000102030405060708090a0b0c0d0e0f"\n[workers]\ncpus = [0]\n[node]\n'
BAD = Outcome("refused", "connection refused")


class Idle(Crew):
    """A crew of which nobody is there yet: nobody has to acknowledge."""

    def alive(self) -> frozenset[int]:
        return frozenset()

    running = alive


class Clock:
    """Stands for the module ``time``."""

    now = 1000.0

    def time(self) -> float:
        return self.now


class Description:
    """What an operator writes into the file."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._outer_df = "true"
        self._pools = {name: self._pool(name) for name in POOLS}
        self._services = self._some_services()

    def change(self) -> None:
        name = self._rng.choice(POOLS)
        what = self._rng.randrange(5)
        if what < 2:
            self._pools[name] = self._pool(name)
        elif what == 2:
            self._services = self._some_services()
        elif what == 3:
            self._pools = dict(self._rng.sample(list(self._pools.items()), len(self._pools)))
        else:
            self._outer_df = self._rng.choice(["true", "false"])

    def text(self) -> str:
        node = f'interfaces = ["eth0"]\nouter_df = {self._outer_df}\n'
        return HEAD + node + "".join(self._pools.values()) + "".join(self._services)

    def _pool(self, name: str) -> str:
        rng = self._rng
        members = zip(
            rng.sample(NAMES, rng.randrange(1, 5)), rng.sample(ADDRESSES, 5), strict=False
        )
        backends = ", ".join(
            f'{{ name = "{n}", address = "{a}", weight = {rng.randrange(3)} }}' for n, a in members
        )
        health = rng.choice(
            ['type = "none"', 'type = "tcp"\nvia = "direct"\nport = 80\nhold_down_s = 20']
        )
        return (
            f'[[pool]]\nname = "{name}"\ntable_size = {rng.choice([7, 31])}\n'
            f'min_healthy = "{rng.choice([0, 50])}%"\nslow_start_s = {rng.choice([0, 0, 40])}\n'
            f'all_down = "{rng.choice(["fail_open", "withdraw"])}"\n'
            f"backends = [{backends}]\n[pool.health]\n{health}\n"
        )

    def _some_services(self) -> list[str]:
        pools = [self._rng.choice(POOLS) for _ in range(self._rng.randrange(5))]
        return [
            f'[[service]]\nvip = "192.0.2.1"\nprotocol = "tcp"\nport = {port}\npool = "{pool}"\n'
            for port, pool in enumerate(pools, 80)
        ]


class Life:
    """A node to which things happen."""

    def __init__(self, seed: int, tables: Tables, thread: ThreadPoolExecutor) -> None:
        self._rng = random.Random(seed)
        self._file, self._memo = Description(self._rng), Memo()
        self._tables = tables
        self.clock = Clock()
        self._world = World()
        self._find_ways()
        self._operations: dict[Any, Operation] = {}
        self._watch = Watch(NoTunnel(), lambda: dict(self._operations))  # type: ignore[arg-type]
        self._monitor = cast("Monitor", self._watch._monitor)
        self._monitor.known = {}
        config = self._read()
        self._text = self._file.text()
        net, ports, crew = Net(self._world), Ports(self._world), Idle(self._world)
        parts = Parts(net, thread, tables, thread, crew, ports, self._watch)  # type: ignore[arg-type]
        self._reconciler = Reconciler(config, parts, Alarm())

    async def begin(self) -> None:
        await self._reconciler.prepare(self._reconciler.config)

    async def step(self) -> None:
        """Something happens, and the node takes it up; then it is what it should be."""
        before = dict(self._watch.standings)
        happens: list[Callable[[], Awaitable[None]]] = [
            self._probe_answers,
            self._probe_answers,
            self._operator_speaks,
            self._network_changes,
            self._reload,
            self._reload_fails,
        ]
        self.clock.now += self._rng.choice([0, 1, 11, 45])
        await self._rng.choice(happens)()
        await self._reconciler.republish()
        self._check(before)

    def _read(self) -> Config:
        return read(self._file.text(), Path("lb.toml"), memo=self._memo)

    async def _probe_answers(self) -> None:
        key, passes = (self._rng.choice(POOLS), self._rng.choice(NAMES)), self._rng.random() < 0.5
        old, now = self._monitor.known.get(key), self.clock.now
        failed = (old.failed if old else 0.0) if passes else now
        reason = "" if passes else f"tcp: {BAD.detail}"
        self._monitor.known[key] = Verdict(passes, now, failed, PASSED if passes else BAD, reason)
        self._monitor.tell(frozenset({key}))

    async def _operator_speaks(self) -> None:
        key = self._rng.choice(POOLS), self._rng.choice(NAMES)
        if self._operations.pop(key, None) is None:
            mode = self._rng.choice(["drained", "disabled"])
            self._operations[key] = Operation(mode, "ann", self.clock.now)  # type: ignore[arg-type]

    async def _network_changes(self) -> None:
        self._find_ways()
        for ring in self._world.rings:
            ring.index = {2: 0, 3: 1}[ring.link.ifindex] + self._rng.choice([0, 2])
        await self._reconciler._pass()

    def _find_ways(self) -> None:
        for address in ADDRESSES:
            if address not in self._world.found or self._rng.random() < 0.3:
                over = self._rng.choice([ETH0, ETH1, None])
                way = resolved(hop(str(address), over)) if over else Resolution((), "no route")
                self._world.found[address] = way

    async def _reload(self) -> None:
        for _ in range(self._rng.randrange(3)):
            self._file.change()
        await self._reconciler.apply(self._read())
        self._text = self._file.text()

    async def _reload_fails(self) -> None:
        self._file.change()
        self._world.failing = {self._rng.choice(["renew", "open", "steer"])}
        with pytest.raises((OSError, SupervisorError)):
            await self._reconciler.apply(self._read())
        self._world.failing = set()

    def _check(self, before: Any) -> None:
        config, state = parse(self._text, "lb.toml"), self._reconciler.state
        ways, tx = self._reconciler.view.resolutions, Ports(self._world).tx_indexes()
        lost = unreachable(config, ways, tx)
        # What is said of a backend that is not there has every pool judged step by step.
        said = self._operations | {(pool, "-"): Operation("drained", "ann", 0.0) for pool in POOLS}
        standings = judge.standings(config, self._monitor.known, lost, said, before, self.clock.now)
        assert self._watch.standings == standings
        fresh = derive(config, ways, tx, standings)
        assert state is not None
        assert state.forwarding == fresh.forwarding
        assert set(state.usable) == set(fresh.usable)
        assert state.unusable == fresh.unusable == lost
        with new_tables() as tables:
            tables.publish(fresh.forwarding)
            assert found(self._tables) == found(tables)


async def nothing(*_arguments: object) -> None:
    pass


@given(seed=st.integers(0, 2**32))
@settings(max_examples=25)
def test_it_is_what_would_be_made_from_nothing(seed: int) -> None:
    with (
        pytest.MonkeyPatch.context() as patch,
        new_tables() as tables,
        ThreadPoolExecutor(1) as thread,
    ):
        patch.setattr(watching, "Monitor", Monitor)
        patch.setattr(reconcile, "SETTLE_S", -1.0)
        patch.setattr(guard, "install", nothing)
        patch.setattr(guard, "missing", nothing)
        life = Life(seed, tables, thread)
        patch.setattr(watching, "time", life.clock)

        async def live() -> None:
            await life.begin()
            for _ in range(15):
                await life.step()

        asyncio.run(live())
