"""Publishes forwarding states: ``Forwarding`` -> shared memory -> one store.

Built aside, verified, then published; memory is reused only when every worker has acknowledged a
later generation. Equal Maglev tables are stored once. Everything here may block: call it in a
thread, from one thread at a time.
"""

import math
import mmap
import os
import time
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from lbfwd.arena import Arena
from lbfwd.encap import IPAddress
from lbfwd.forwarding import FlowTimes, Forwarding, ServiceState
from lbfwd.peers import pack_peers
from lbfwd.pools import Draft, Pools
from lbfwd.ring import DROP_REASONS, EVENTS, MAX_BACKENDS, MAX_SERVICES, MAX_WORKERS
from lbfwd.shared import (
    BUCKET_BYTES,
    CONTROL_BYTES,
    COUNTERS_BYTES,
    FLOW_WAYS,
    FLOWS_HEADER,
    INCARNATION_MASK,
    Control,
    CountersView,
    SlotView,
    check_snapshot,
    count_flows,
    flows_in_use,
    init_flows,
)
from lbfwd.slots import Columns, Moves, Slots, Tenants
from lbfwd.snapshot import (
    BackendKey,
    Catalogue,
    Layout,
    ServiceKey,
    service_key,
)

FILES = ("control", "arena", "counters", "flows")
# Entries a flow: so many that two choices of four nearly always find room (bench/flow_table.py).
SPARE = 1.5


class TablesError(Exception):
    """A forwarding state could not be published; the one in force is unchanged."""


@dataclass(frozen=True)
class Count:
    """Packets, bytes of the packets as they came (IP, before encapsulation), and flows begun."""

    packets: int
    bytes: int
    new_flows: int


@dataclass(frozen=True)
class Totals:
    """Counters over all workers since each service or backend was configured."""

    services: dict[str, Count]
    backends: dict[tuple[str, str], Count]
    drops: dict[str, int]
    events: dict[str, int]


@dataclass(frozen=True)
class AllTenants:
    """Who has which counters; ``named`` tells the names of the services."""

    named: Sequence[ServiceState]
    services: Tenants[ServiceKey]
    backends: Tenants[BackendKey]


@dataclass(frozen=True)
class Counts:
    """The counters as they were read, by slot, and whose they are.

    What goes through them makes no more objects than it keeps: there may be 100,000.
    """

    tenants: AllTenants
    by_service_slot: Columns
    by_backend_slot: Columns
    drops: dict[str, int]
    events: dict[str, int]

    def services(self) -> Iterator[tuple[str, int, int, int]]:
        """Give name, packets, bytes and new flows of each service."""
        names = {service_key(service): service.name for service in self.tenants.named}
        for key, packets, size, new in self.tenants.services.counts(self.by_service_slot):
            yield names[key], packets, size, new

    def backends(self) -> Iterator[tuple[str, str, int, int, int]]:
        """Give pool, name, packets, bytes and new flows of each backend."""
        for key, packets, size, new in self.tenants.backends.counts(self.by_backend_slot):
            yield key[0], key[1], packets, size, new

    def packets_to(self, vips: Set[IPAddress]) -> int:
        """Count the packets of all services of these VIPs."""
        rows = self.tenants.services.counts(self.by_service_slot)
        return sum(packets for key, packets, _size, _new in rows if key[0] in vips)

    def totals(self) -> Totals:
        """Return them by name."""
        services = {name: Count(*count) for name, *count in self.services()}
        backends = {(pool, name): Count(*count) for pool, name, *count in self.backends()}
        return Totals(services, backends, self.drops, self.events)


@dataclass(frozen=True)
class Seats:
    """Who has which slot: services by slot, backends by slot and (cut) incarnation."""

    services: dict[int, ServiceKey]
    backends: dict[tuple[int, int], BackendKey]


FlowKey = tuple[ServiceKey, BackendKey]


@dataclass(frozen=True)
class FlowCount:
    """Live flows; ``closing`` of them have seen a FIN or RST."""

    live: int = 0
    closing: int = 0


@dataclass(frozen=True)
class _Generation:
    number: int
    offset: int
    extents: frozenset[int]  # arena offsets that it refers to
    services: bytearray


class Tables:
    """Owner of the shared files of one node."""

    def __init__(self, directory: Path, worker_slots: int, flows: int) -> None:
        """Use ``create``."""
        self._directory = directory
        self._workers = worker_slots
        self._buckets = math.ceil(flows * SPARE / FLOW_WAYS)
        self._stack = ExitStack()
        self._catalogue = Catalogue((), ())
        self._live: list[_Generation] = []  # ascending; the last is the one in force
        self._seated: Seats | None = None

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
        self._fds = [self._create(name) for name in FILES]
        control_fd, arena_fd, counters_fd, flows_fd = self._fds
        # Written through mappings: their pages exist from now on, or a full file system would be a
        # SIGBUS to whoever counts a packet.
        os.posix_fallocate(control_fd, 0, CONTROL_BYTES)
        os.posix_fallocate(counters_fd, 0, self._workers * COUNTERS_BYTES)
        os.posix_fallocate(flows_fd, 0, FLOWS_HEADER + self._workers * self._buckets * BUCKET_BYTES)
        with mmap.mmap(flows_fd, FLOWS_HEADER) as header:
            init_flows(header, self._workers, self._buckets)
        self._arena = Arena(arena_fd)
        self._stack.callback(self._arena.unmap)
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
        self._pools = Pools(self._arena, self._backends)

    def _create(self, name: str) -> int:
        # A file of an earlier life may still be mapped by a worker: never truncate it.
        (self._directory / name).unlink(missing_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(self._directory / name, flags, 0o600)
        self._stack.callback(os.close, fd)
        return fd

    def files(self) -> tuple[int, ...]:
        """Return the descriptors of control, arena, counters and flows, for a worker."""
        return tuple(self._fds)

    @property
    def generation(self) -> int:
        """The generation in force; 0 before the first."""
        return self._live[-1].number if self._live else 0

    def publish(self, forwarding: Forwarding) -> int:
        """Build, verify and publish; returns the new generation.

        Pools and services that are the same objects as in the last generation are not built again.
        Raises TablesError, and then nothing has changed.
        """
        number = self.generation + 1
        try:
            services = self._plan_services(forwarding.services)
            catalogue = self._catalogue_of(forwarding.services, services)
            draft = self._pools.draft(forwarding.pools)
            new = self._place(forwarding, catalogue, draft)
        except (OSError, ValueError, ArithmeticError, LookupError) as error:
            raise TablesError(f"generation {number} was not published: {error}") from error
        self._services.commit(services)
        self._pools.commit(draft)
        self._catalogue = catalogue
        self._live.append(new)
        if services.any or draft.moves.any:
            self._seated = None
        self._control.set_arena_bytes(self._arena.size)
        self._control.publish(number, new.offset)
        return number

    def _plan_services(self, services: Sequence[ServiceState]) -> Moves[ServiceKey]:
        if services is self._catalogue.services:
            return self._services.plan((), ())
        new = dict.fromkeys(map(service_key, services))
        coming = [key for key in new if key not in self._services]
        return self._services.plan(coming, [key for key in self._services.seats if key not in new])

    def _catalogue_of(
        self, services: Sequence[ServiceState], moves: Moves[ServiceKey]
    ) -> Catalogue:
        before = self._catalogue
        if before.services is services:
            return before
        seats = [moves.coming.get(key) or self._services[key] for key in map(service_key, services)]
        return Catalogue(services, [seat.slot for seat in seats])

    def _place(self, forwarding: Forwarding, catalogue: Catalogue, draft: Draft) -> _Generation:
        """Write and verify the rest of the next generation. When that fails, nothing is left."""
        number, offset = self.generation + 1, 0
        try:
            services = self._join(catalogue, draft)
            rows, peers = self._backends.rows(draft.moves), pack_peers(forwarding.peers)
            layout = Layout(catalogue, draft.backends, rows, services, peers)
            offset = self._arena.reserve(layout.size)
            for at, data in layout.build(forwarding, number, offset):
                self._arena.write(at, data)
            check_snapshot(self._arena.mapped(), offset)
        except BaseException:
            self._pools.undo(draft)
            if offset:
                self._arena.free(offset)
            raise
        return _Generation(number, offset, frozenset((offset, *draft.extents())), services)

    def _join(self, catalogue: Catalogue, draft: Draft) -> bytearray:
        """Return services and their pools."""
        if self._live and catalogue is self._catalogue:
            return catalogue.patch(self._live[-1].services, draft.placed, draft.changed)
        return catalogue.pack(draft.placed)

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
        self._pools.release(gone)

    def tenants(self) -> AllTenants:
        """Return whose counters there are now: milliseconds for 100,000 backends."""
        named = self._catalogue.services
        return AllTenants(named, self._services.tenants(), self._backends.tenants())

    def counts(self, tenants: AllTenants) -> Counts:
        """Read the counters of these tenants; may run beside anything else."""
        counters = self._counters
        return Counts(
            tenants,
            counters.services(tenants.services.slots),
            counters.backends(tenants.backends.slots),
            drops={DROP_REASONS[n]: counters.drop(n) for n in range(1, len(DROP_REASONS))},
            events={name: counters.event(number) for number, name in enumerate(EVENTS)},
        )

    def totals(self) -> Totals:
        """Read the counters of all that is configured now."""
        return self.counts(self.tenants()).totals()

    def seats(self) -> Seats:
        """Return who has which slot in the generation in force; made anew when that changes."""
        if self._seated is None:
            self._seated = Seats(
                services={seat.slot: key for key, seat in self._services.seats.items()},
                backends={
                    (seat.slot, seat.incarnation & INCARNATION_MASK): key
                    for key, seat in self._backends.seats.items()
                },
            )
        return self._seated

    def live_flows(self, seats: Seats, times: FlowTimes) -> dict[FlowKey, FlowCount]:
        """Count live flows by service and backend; may run beside anything else.

        ``seats`` may be a moment old: flows of what has no seat there are left out. 16 bytes an
        entry are read: about 10 ms for a million.
        """
        with mmap.mmap(self._fds[FILES.index("flows")], 0, prot=mmap.PROT_READ) as memory:
            rows = count_flows(memory, asdict(times), int(time.monotonic()))
        found = {
            (seats.services.get(row.service), seats.backends.get((row.backend, row.incarnation))): (
                FlowCount(row.live, row.closing)
            )
            for row in rows
        }
        return {(s, b): count for (s, b), count in found.items() if s is not None and b is not None}

    def flows_in_use(self, times: FlowTimes) -> tuple[int, ...]:
        """Count the live entries of each worker's flow table; may run beside anything else."""
        now_s = int(time.monotonic())
        with mmap.mmap(self._fds[FILES.index("flows")], 0, prot=mmap.PROT_READ) as memory:
            return tuple(
                flows_in_use(memory, asdict(times), now_s, worker)
                for worker in range(self._workers)
            )

    def slot(self, index: int) -> SlotView:
        """Read what a worker says of itself."""
        return self._control.slot(index)

    def close(self, unlink: bool) -> None:
        """Unmap and close, and take the files away. Workers that map them are not disturbed."""
        self._stack.close()
        if unlink:
            for name in FILES:
                (self._directory / name).unlink(missing_ok=True)
