"""A forwarding state as the bytes that workers read. Pure. docs/architecture.md.

A pool has a block of its own, paths and members, which generations share for as long as nothing
in it changes; a generation's block holds the rest.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from lbfwd import maglev
from lbfwd.encap import IPAddress
from lbfwd.forwarding import Forwarding, Member, PoolState, ServiceState
from lbfwd.paths import path_row
from lbfwd.peers import PackedPeers
from lbfwd.shared import (
    PATH_BYTES,
    SNAPSHOT_BYTES,
    UNIT,
    BackendRow,
    NodeRow,
    PoolRow,
    ServiceRow,
    aligned,
    hash_slots,
    join_pools,
    pack_members,
    pack_paths,
    pack_services,
    pack_snapshot,
    pack_vips,
)
from lbfwd.slots import Seat

BackendKey = tuple[str, str, IPAddress]  # pool, name, address
ServiceKey = tuple[IPAddress, str, int]  # VIP, protocol, port


class TableKey(NamedTuple):
    """What a Maglev table depends on: pools that agree on it share one. By identity, ascending."""

    size: int
    names: tuple[str, ...]
    weights: tuple[int, ...]


def service_key(service: ServiceState) -> ServiceKey:
    """Return what identifies a service across reloads."""
    return service.vip, service.protocol, service.port


def backend_keys(pool: PoolState) -> list[BackendKey]:
    """Return what identifies each backend across reloads; another address is another backend."""
    return [(pool.name, member.name, member.address) for member in pool.members]


def ranked(pool: PoolState) -> list[Member]:
    """Return a pool's members in ascending order of identity, as tables number them."""
    return [pool.members[i] for i in maglev.rank([m.name for m in pool.members])]


def table_key(pool: PoolState, members: Sequence[Member]) -> TableKey:
    """Return what the pool's table depends on. ``members``: ranked."""
    names, weights = [m.name for m in members], [m.effective_weight for m in members]
    return TableKey(pool.table_size, tuple(names), tuple(weights))


def needs_table(key: TableKey) -> bool:
    """Whether any backend takes part."""
    return any(key.weights)


# ---- a pool's block ----


@dataclass(frozen=True)
class PlacedPool:
    """A pool, the seats of its members by name, and the arena offsets of what it is made of.

    ``table`` 0: no backend takes part.
    """

    pool: PoolState
    members: Sequence[Member]
    """Ranked."""
    seats: Mapping[str, Seat]
    table: int
    block: int

    @property
    def number(self) -> int:
        """What tells it from the other pools of its generation."""
        return self.block // UNIT

    @cached_property
    def row(self) -> PoolRow:
        """What its services say of it; the members lie behind the paths."""
        paths = sum(len(member.paths) for member in self.members)
        return PoolRow(
            members=len(self.members),
            table_offset=self.table,
            members_offset=self.block + PATH_BYTES * paths,
            table_size=self.pool.table_size if self.table else 0,
            pool=self.number,
        )

    def same_block(self, members: Sequence[Member], seats: Mapping[str, Seat]) -> bool:
        """Whether these ranked members would have the block that it has: only weights differ."""
        return seats is self.seats and all(
            old.paths is new.paths for old, new in zip(self.members, members, strict=True)
        )

    def rows(self) -> Iterator[tuple[int, BackendRow]]:
        """Return the rows of its backends, with their slots."""
        first = self.block // PATH_BYTES
        for member in self.members:
            seat, count = self.seats[member.name], len(member.paths)
            yield seat.slot, BackendRow(first, count, seat.incarnation, self.number)
            first += count


PathMemo = dict[int, bytes]
"""Paths that are packed, by the ``id`` of the tuple, which somebody must hold meanwhile."""


def pack_pool(members: Sequence[Member], seats: Mapping[str, Seat], memo: PathMemo) -> bytes:
    """Return a pool's block: the paths of its ranked members, and their slots."""
    for member in members:
        if id(member.paths) not in memo:
            memo[id(member.paths)] = pack_paths([path_row(path) for path in member.paths])
    paths = [memo[id(member.paths)] for member in members]
    return b"".join(paths) + pack_members([seats[member.name].slot for member in members])


# ---- a generation's block ----


class Catalogue:
    """Services and their VIPs, as far as they do not depend on pools."""

    def __init__(self, services: Sequence[ServiceState], counters: Sequence[int]) -> None:
        """Pack what is known already. ``counters``: the services' slots, in their order."""
        self.services = services
        # The first service of each VIP, by protocol and port, is the one that echo is taken to.
        first = sorted(services, key=_service_order, reverse=True)
        vips = {s.vip: (s.protocol, s.port) for s in first}
        ids = {vip: number for number, vip in enumerate(vips)}
        self.vip_slots, self.slots = hash_slots(len(vips)), hash_slots(len(services))
        self.vips = pack_vips(vips, self.vip_slots)
        rows = [
            ServiceRow(ids[s.vip], s.protocol, s.port, s.affinity, counter, s.empty)
            for s, counter in zip(services, counters, strict=True)
        ]
        self._packed, places = pack_services(rows, self.slots)
        self._places: dict[str, list[int]] = {}
        for place, service in zip(places, services, strict=True):
            self._places.setdefault(service.pool, []).append(place)

    def pack(self, pools: Mapping[str, PlacedPool]) -> bytearray:
        """Return the look-up table of services. Raises KeyError for a pool that is not there."""
        return self._join(self._packed, {name: pools[name] for name in self._places})

    def patch(
        self, packed: bytearray, pools: Mapping[str, PlacedPool], changed: Iterable[str]
    ) -> bytearray:
        """Return what ``pack`` would, from what it returned when some pools were not changed yet.

        Raises KeyError as ``pack`` does.
        """
        if lacking := self._places.keys() - pools.keys():
            raise KeyError(*lacking)
        return self._join(packed, {name: pools[name] for name in changed if name in self._places})

    def _join(self, packed: bytes | bytearray, pools: Mapping[str, PlacedPool]) -> bytearray:
        rows = ((at, pool.row) for name, pool in pools.items() for at in self._places[name])
        return join_pools(packed, rows)


def _service_order(service: ServiceState) -> tuple[int, bytes, str, int]:
    return service.vip.version, service.vip.packed, service.protocol, service.port


Piece = tuple[int, bytes | bytearray]
"""Arena offset, and what is to be there."""


@dataclass(frozen=True)
class Layout:
    """A generation's block: header, VIPs, backends by slot, services, nodes of the fleet."""

    catalogue: Catalogue
    backends: bytearray
    backend_rows: int
    services: bytearray
    peers: PackedPeers

    @property
    def size(self) -> int:
        """Bytes of the whole block."""
        return SNAPSHOT_BYTES + sum(aligned(len(data)) for _name, data, _rows in self._parts())

    def build(self, forwarding: Forwarding, generation: int, base: int) -> Iterator[Piece]:
        """Return what to write for a block at arena offset ``base``."""
        times = forwarding.flow_times
        node = NodeRow(
            hash_key=forwarding.hash_key,
            echo=forwarding.echo,
            unconfirmed_s=times.unconfirmed_s,
            tcp_idle_s=times.tcp_idle_s,
            tcp_closing_s=times.tcp_closing_s,
            udp_idle_s=times.udp_idle_s,
            here=self.peers.here,
        )
        at, places = base + SNAPSHOT_BYTES, {}
        for name, data, rows in self._parts():
            places[name] = at, rows
            yield at, data
            at += aligned(len(data))
        yield base, pack_snapshot(generation, node, places)

    def _parts(self) -> tuple[tuple[str, bytes | bytearray, int], ...]:
        catalogue, peers = self.catalogue, self.peers
        return (
            ("vips", catalogue.vips, catalogue.vip_slots),
            ("backends", self.backends, self.backend_rows),
            ("services", self.services, catalogue.slots),
            ("peers", peers.rows, peers.count),
            ("peer_paths", peers.paths, peers.path_count),
            ("peer_table", peers.table, peers.table_size),
        )
