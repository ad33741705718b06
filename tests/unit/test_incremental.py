"""Generation after generation: what builds on the last is what would be built from nothing."""

import errno
import os
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lbfwd._ringlib import ffi

from lbfwd.forwarding import Forwarding, Member, PoolState, ServiceState
from lbfwd.tables import Tables, TablesError
from tests.oracle import maglev as oracle
from tests.packet import bench
from tests.packet.memory import Published, published

NAMES = [f"b{n}" for n in range(1, 9)]
POOLS = ["p", "q", "r"]
SIZES = [7, 31, 251]
VIPS = [ip_address(text) for text in ("192.0.2.10", "192.0.2.11", "2001:db8::10")]


# ---- a world that changes a little at a time ----


class World:
    """A forwarding state; what a step does not touch stays the same object."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.pools: dict[str, PoolState] = {}
        self.services: tuple[ServiceState, ...] = ()
        self.echo = "reply"
        for name in POOLS[:2]:
            self._new_pool(name)
        self._new_services()

    def state(self) -> Forwarding:
        return bench.forwarding(self.services, list(self.pools.values()), self.echo)

    def step(self) -> None:
        for _ in range(self._rng.randrange(3)):
            self._rng.choice(
                [
                    self._reweigh,
                    self._reweigh,
                    self._toggle,
                    self._toggle,
                    self._come_or_go,
                    self._readdress,
                    self._resize,
                    self._shuffle,
                    self._equal,
                    self._pool_comes_or_goes,
                    self._new_services,
                    self._echo,
                ]
            )()

    def _member(self, name: str) -> Member:
        number = int(name[1:]) + 10 * self._rng.randrange(2)
        hops = [bench.path(4, number, hop=hop) for hop in range(self._rng.randrange(3))]
        weight = self._rng.randrange(4)
        return Member(name, bench.address(4, number), weight, tuple(hops))

    def _new_pool(self, name: str) -> None:
        names = self._rng.sample(NAMES, self._rng.randrange(6))
        members = tuple(self._member(name) for name in names)
        self.pools[name] = PoolState(name, self._rng.choice(SIZES), members)

    def _change(self, **changes: Any) -> None:
        """Change one member of one pool."""
        pool = self._rng.choice(list(self.pools.values()))
        if pool.members:
            members = list(pool.members)
            at = self._rng.randrange(len(members))
            members[at] = replace(members[at], **changes)
            self.pools[pool.name] = replace(pool, members=tuple(members))

    def _reweigh(self) -> None:
        self._change(weight=self._rng.randrange(5))

    def _toggle(self) -> None:
        self._change(paths=self._member("b1").paths)

    def _readdress(self) -> None:
        self._change(address=bench.address(4, 90 + self._rng.randrange(9)))

    def _come_or_go(self) -> None:
        pool = self._rng.choice(list(self.pools.values()))
        name = self._rng.choice(NAMES)
        members = tuple(m for m in pool.members if m.name != name)
        if len(members) == len(pool.members):
            members += (self._member(name),)
        self.pools[pool.name] = replace(pool, members=members)

    def _resize(self) -> None:
        pool = self._rng.choice(list(self.pools.values()))
        self.pools[pool.name] = replace(pool, table_size=self._rng.choice(SIZES))

    def _shuffle(self) -> None:
        """The order of members and pools says nothing."""
        for name in self._rng.sample(list(self.pools), len(self.pools)):
            pool = self.pools.pop(name)
            members = self._rng.sample(pool.members, len(pool.members))
            self.pools[name] = replace(pool, members=tuple(members))

    def _equal(self) -> None:
        """Equal things that are other objects."""
        for name, pool in self.pools.items():
            self.pools[name] = replace(pool, members=tuple(replace(m) for m in pool.members))
        self.services = tuple(replace(service) for service in self.services)

    def _pool_comes_or_goes(self) -> None:
        name = self._rng.choice(POOLS)
        if name not in self.pools:
            self._new_pool(name)
        elif len(self.pools) > 1:
            del self.pools[name]
            self._new_services()

    def _new_services(self) -> None:
        keys = {
            (self._rng.choice(VIPS), self._rng.choice(["tcp", "udp"]), self._rng.randrange(3))
            for _ in range(self._rng.randrange(7))
        }
        self.services = tuple(
            ServiceState(
                f"{vip}:{port}/{protocol}",
                vip,
                protocol,
                port,
                self._rng.choice(["5-tuple", "source"]),
                self._rng.choice(list(self.pools)),
                self._rng.choice(["drop", "reject"]),
            )
            for vip, protocol, port in keys
        )

    def _echo(self) -> None:
        self.echo = self._rng.choice(["reply", "backend", "drop"])


# ---- what workers find in it ----


@dataclass(frozen=True)
class Found:
    """A service as it is found: its paths by bucket, everyone who may serve it, and the rest."""

    buckets: tuple[tuple[bytes, ...] | None, ...]
    servers: frozenset[tuple[bytes, ...]]
    rest: tuple[int, ...]


def found(tables: Tables) -> dict[object, Any]:
    with published(tables) as memory:
        s = memory.snapshot
        head = (s.echo, *s.lifetimes_s, *s.hash_key)
        vips = [memory.vips[n] for n in range(s.vip_slots)]
        ids = {
            v.id: (v.family, bytes(v.address), v.echo_protocol, v.echo_port)
            for v in vips
            if v.family
        }
        rows = [memory.services[n] for n in range(s.service_slots)]
        services = {
            (ids[r.vip], r.protocol, r.port): service(memory, r) for r in rows if r.protocol
        }
        return {"head": head, "vips": set(ids.values()), "services": services}


def service(memory: Published, row: Any) -> Found:
    members = memory.at("uint32_t", row.members_offset)
    table = memory.at("uint16_t", row.table_offset)
    entries = [table[n] for n in range(row.table_size)]
    slots = [members[n] for n in range(row.members)]
    backends = [memory.backends[n] for n in range(memory.snapshot.backends)]
    mine = [n for n, backend in enumerate(backends) if backend.pool == row.pool]
    assert sorted(slots) == mine, "a pool's members are those that know it"
    return Found(
        buckets=tuple(paths(memory, backends[slots[e]]) for e in entries),
        servers=frozenset(paths(memory, backends[slot]) for slot in slots),
        rest=(row.affinity, row.empty, row.table_size, row.members),
    )


def paths(memory: Published, backend: Any) -> tuple[bytes, ...]:
    rows = (memory.paths[backend.path_first + n] for n in range(backend.path_count))
    return tuple(bytes(ffi.buffer(ffi.addressof(row))) for row in rows)


@contextmanager
def new_tables() -> Iterator[Tables]:
    with tempfile.TemporaryDirectory() as directory:
        tables = Tables.create(Path(directory), 1, 8)
        try:
            yield tables
        finally:
            tables.close(unlink=True)


@given(seed=st.integers(0, 2**32), steps=st.integers(1, 25))
@settings(max_examples=60, deadline=None)
def test_it_is_what_would_be_built_from_nothing(seed: int, steps: int) -> None:
    world = World(random.Random(seed))
    with new_tables() as tables:
        for _ in range(steps):
            world.step()
            tables.publish(world.state())
            tables.reclaim([])
            with new_tables() as fresh:
                fresh.publish(world.state())
                assert found(tables) == found(fresh)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=15, deadline=None)
def test_its_tables_are_the_oracles(seed: int) -> None:
    world = World(random.Random(seed))
    with new_tables() as tables:
        for _ in range(10):
            world.step()
            tables.publish(world.state())
            tables.reclaim([])
        tables_by_pool = {
            pool.name: oracle.table(
                {m.name: m.effective_weight for m in pool.members}, pool.table_size
            )
            for pool in world.pools.values()
            if any(m.effective_weight for m in pool.members)
        }
        services = found(tables)["services"]
    for state in world.services:
        macs = {m.name: [p.dst_mac for p in m.paths] for m in world.pools[state.pool].members}
        wanted = [macs[name] for name in tables_by_pool.get(state.pool, ()) if name]
        family, packed = state.vip.version, state.vip.packed.ljust(16, b"\0")
        (got,) = [
            v
            for (vip, protocol, port), v in services.items()
            if vip[:2] == (family, packed)
            and (protocol, port) == ({"tcp": 6, "udp": 17}[state.protocol], state.port)
        ]
        assert [[path[:6] for path in hops or ()] for hops in got.buckets] == wanted


@given(seed=st.integers(0, 2**32), data=st.data())
@settings(max_examples=40, deadline=None)
def test_a_failure_leaves_the_last_one_whole(seed: int, data: st.DataObject) -> None:
    """Whichever write fails; and the next publication is what it should be."""
    world = World(random.Random(seed))
    with new_tables() as tables:
        tables.publish(world.state())
        before, used = found(tables), dict(tables._arena._used)
        world.step()
        left = data.draw(st.integers(0, 10))

        def pwrite(fd: int, view: Any, offset: int) -> int:
            nonlocal left
            left -= 1
            if left < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(fd, view, offset)

        with pytest.MonkeyPatch.context() as patch:
            real = os.pwrite
            patch.setattr(os, "pwrite", pwrite)
            try:
                tables.publish(world.state())
            except TablesError:
                assert found(tables) == before
                assert tables._arena._used == used
        world.step()
        tables.publish(world.state())
        with new_tables() as fresh:
            fresh.publish(world.state())
            assert found(tables) == found(fresh)


def test_memory_is_reclaimed_over_1000_changes() -> None:
    """What lies in the arena is what the generation in force refers to, and it does not grow."""
    rng = random.Random(7)
    members = [[bench.member(4, n, rng.randrange(1, 9)) for n in range(20)] for _ in range(30)]
    pools = [bench.pool(f"p{n}", row, 2003) for n, row in enumerate(members)]
    services = tuple(bench.service(bench.VIP4, "tcp", n + 1, f"p{n}") for n in range(30))
    sizes = []
    with new_tables() as tables:
        for _ in range(1000):
            at = rng.randrange(30)
            row = list(pools[at].members)
            row[rng.randrange(len(row))] = bench.member(
                4, rng.randrange(100, 200), rng.randrange(4)
            )
            distinct = tuple({m.name: m for m in row}.values())
            pools[at] = replace(pools[at], members=distinct)
            tables.publish(bench.forwarding(services, pools))
            tables.reclaim([])
            assert set(tables._arena._used) == tables._live[-1].extents
            sizes.append(tables._arena.size)
    assert sizes[-1] == sizes[0]


def test_what_did_not_change_is_not_written_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 1,000 pools one changes: its block and its table are new, and the generation's block."""
    shared = [bench.member(4, n) for n in range(3)]
    pools = [bench.pool(f"p{n}", shared) for n in range(1000)]
    services = tuple(bench.service(bench.VIP4, "tcp", n + 1, f"p{n}") for n in range(1000))
    with new_tables() as tables:
        tables.publish(bench.forwarding(services, pools))
        before = tables._live[-1].extents
        pools[7] = replace(pools[7], members=(replace(shared[0], paths=()), *shared[1:]))
        tables.publish(bench.forwarding(services, pools))
        assert len(tables._live[-1].extents - before) == 3
        before = tables._live[-1].extents
        pools[8] = replace(pools[8], members=(replace(shared[0], weight=2), *shared[1:]))
        tables.publish(bench.forwarding(services, pools))
        assert len(tables._live[-1].extents - before) == 2, "the paths are the same"
