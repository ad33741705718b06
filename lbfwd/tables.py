"""Publishes forwarding states: ``Forwarding`` -> shared memory -> one store.

Built aside, verified, then published; memory is reused only when every worker has acknowledged a
later generation. Equal Maglev tables are stored once. Everything here may block: call it in a
thread, from one thread at a time.
"""

import math
import mmap
import os
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from lbfwd import maglev
from lbfwd.arena import Arena
from lbfwd.forwarding import Forwarding, PoolState
from lbfwd.ring import DROP_REASONS, EVENTS, MAX_BACKENDS, MAX_SERVICES, MAX_WORKERS
from lbfwd.shared import (
    BUCKET_BYTES,
    CONTROL_BYTES,
    COUNTERS_BYTES,
    FLOW_WAYS,
    FLOWS_HEADER,
    Control,
    CountersView,
    SlotView,
    check_snapshot,
    init_flows,
)
from lbfwd.slots import Slots
from lbfwd.snapshot import (
    BackendKey,
    Layout,
    ServiceKey,
    TableKey,
    backend_keys,
    needs_table,
    service_keys,
    table_key,
)

FILES = ("control", "arena", "counters", "flows")
# Entries a flow: so many that two choices of four nearly always find room (bench/flow_table.py).
SPARE = 1.5


class TablesError(Exception):
    """A forwarding state could not be published; the one in force is unchanged."""


@dataclass(frozen=True)
class Count:
    """Packets, and bytes of the packets as they came (IP, before encapsulation)."""

    packets: int
    bytes: int


@dataclass(frozen=True)
class Totals:
    """Counters over all workers since each service or backend was configured."""

    services: dict[str, Count]
    backends: dict[tuple[str, str], Count]
    drops: dict[str, int]
    events: dict[str, int]


@dataclass
class _Generation:
    number: int
    offset: int = 0
    extents: set[int] = field(default_factory=set)  # arena offsets that it refers to


class Tables:
    """Owner of the shared files of one node."""

    def __init__(self, directory: Path, worker_slots: int, flows: int) -> None:
        """Use ``create``."""
        self._directory = directory
        self._workers = worker_slots
        self._buckets = math.ceil(flows * SPARE / FLOW_WAYS)
        self._stack = ExitStack()
        self._tables: dict[TableKey, int] = {}
        self._live: list[_Generation] = []  # ascending; the last is the one in force
        self._in_force: Forwarding | None = None

    @classmethod
    def create(cls, directory: Path, worker_slots: int, flows: int) -> Self:
        """Make the files (mode 0600) in the directory. Raises OSError.

        ``flows``: live flows that each worker can hold.
        """
        if not 0 < worker_slots <= MAX_WORKERS:
            raise ValueError(f"{worker_slots} workers: 1 to {MAX_WORKERS}")
        self = cls(directory, worker_slots, flows)
        try:
            self._set_up()
        except BaseException:
            self.close(unlink=True)
            raise
        return self

    def _set_up(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fds = []
        for name in FILES:
            # A file of an earlier life may still be mapped by a worker: never truncate it.
            (self._directory / name).unlink(missing_ok=True)
            fd = os.open(self._directory / name, flags, 0o600)
            self._stack.callback(os.close, fd)
            self._fds.append(fd)
        control_fd, arena_fd, counters_fd, flows_fd = self._fds
        # Written through mappings: their pages exist from now on, or a full file system would be a
        # SIGBUS to whoever counts a packet.
        os.posix_fallocate(control_fd, 0, CONTROL_BYTES)
        os.posix_fallocate(counters_fd, 0, self._workers * COUNTERS_BYTES)
        os.posix_fallocate(flows_fd, 0, FLOWS_HEADER + self._workers * self._buckets * BUCKET_BYTES)
        with mmap.mmap(flows_fd, FLOWS_HEADER) as header:
            init_flows(header, self._workers, self._buckets)
        self._arena = Arena(arena_fd)
        control_map = self._stack.enter_context(mmap.mmap(control_fd, CONTROL_BYTES))
        counters_map = self._stack.enter_context(
            mmap.mmap(counters_fd, self._workers * COUNTERS_BYTES, prot=mmap.PROT_READ)
        )
        self._control = Control(control_map)
        self._stack.callback(self._control.release)
        self._counters = CountersView(counters_map, self._workers)
        self._stack.callback(self._counters.release)
        self._control.init(self._workers, self._arena.size)
        self._services: Slots[ServiceKey] = Slots("services", MAX_SERVICES, self._counters.service)
        self._backends: Slots[BackendKey] = Slots("backends", MAX_BACKENDS, self._counters.backend)

    def files(self) -> tuple[int, ...]:
        """Return the descriptors of control, arena, counters and flows, for a worker."""
        return tuple(self._fds)

    @property
    def generation(self) -> int:
        """The generation in force; 0 before the first."""
        return self._live[-1].number if self._live else 0

    def publish(self, forwarding: Forwarding) -> int:
        """Build, verify and publish; returns the new generation.

        Raises TablesError, and then nothing has changed.
        """
        new = _Generation(self.generation + 1)
        made: list[TableKey] = []
        try:
            services = self._services.plan(service_keys(forwarding))
            backends = self._backends.plan(backend_keys(forwarding))
            for pool in forwarding.pools:
                self._place_table(pool, made, new)
            self._place_snapshot(Layout(forwarding, services, backends, self._tables), new)
        except (OSError, ValueError, ArithmeticError, LookupError) as error:
            self._undo(new, made)
            raise TablesError(f"generation {new.number} was not published: {error}") from error
        self._services.commit(services)
        self._backends.commit(backends)
        self._live.append(new)
        self._in_force = forwarding
        self._control.set_arena_bytes(self._arena.size)
        self._control.publish(new.number, new.offset)
        return new.number

    def _undo(self, new: _Generation, made: list[TableKey]) -> None:
        for key in made:
            self._arena.free(self._tables.pop(key))
        if new.offset:
            self._arena.free(new.offset)

    def _place_table(self, pool: PoolState, made: list[TableKey], new: _Generation) -> None:
        key = table_key(pool)
        if not needs_table(key):
            return
        if key not in self._tables:
            names, weights = zip(*key[1], strict=True)
            table = maglev.populate(names, weights, pool.table_size)
            self._tables[key] = self._arena.store(memoryview(table).cast("B"))
            made.append(key)
        new.extents.add(self._tables[key])

    def _place_snapshot(self, layout: Layout, new: _Generation) -> None:
        new.offset = self._arena.reserve(layout.size)
        new.extents.add(new.offset)
        self._arena.write(new.offset, layout.build(new.number, new.offset))
        with mmap.mmap(self._arena.fd, self._arena.size, prot=mmap.PROT_READ) as arena:
            check_snapshot(arena, new.offset)

    def acknowledged(self, generation: int, slots: Iterable[int]) -> bool:
        """Whether the workers of all these slots use the generation, or refer to none."""
        return all(self._control.acknowledged(slot, generation) for slot in slots)

    def reclaim(self, slots: Iterable[int]) -> None:
        """Reuse memory that only generations refer to which no worker uses any more."""
        if not self._live or not self.acknowledged(self._live[-1].number, slots):
            return
        kept = self._live[-1].extents
        gone = set().union(*(g.extents for g in self._live[:-1])) - kept
        del self._live[:-1]
        self._tables = {key: at for key, at in self._tables.items() if at not in gone}
        for offset in gone:
            self._arena.free(offset)

    def totals(self) -> Totals:
        """Read all counters of what is configured now."""
        forwarding = self._in_force
        services, backends = {}, {}
        if forwarding is not None:
            for service, key in zip(forwarding.services, service_keys(forwarding), strict=True):
                services[service.name] = Count(*self._services.count(key))
            for pool, name, address in backend_keys(forwarding):
                backends[pool, name] = Count(*self._backends.count((pool, name, address)))
        drops = {DROP_REASONS[n]: self._counters.drop(n) for n in range(1, len(DROP_REASONS))}
        events = {name: self._counters.event(number) for number, name in enumerate(EVENTS)}
        return Totals(services, backends, drops, events)

    def slot(self, index: int) -> SlotView:
        """Read what a worker says of itself."""
        return self._control.slot(index)

    def close(self, unlink: bool) -> None:
        """Unmap and close, and take the files away. Workers that map them are not disturbed."""
        self._stack.close()
        if unlink:
            for name in FILES:
                (self._directory / name).unlink(missing_ok=True)
