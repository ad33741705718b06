"""One forwarding state as the block of bytes that workers read. Pure. DESIGN §5."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from lbfwd import maglev
from lbfwd.encap import IPAddress, outer_header
from lbfwd.forwarding import Forwarding, Member, PathSpec, PoolState
from lbfwd.shared import (
    SNAPSHOT_BYTES,
    BackendRow,
    PathRow,
    ServiceRow,
    aligned,
    hash_slots,
    pack_backends,
    pack_members,
    pack_paths,
    pack_services,
    pack_snapshot,
    pack_vips,
)
from lbfwd.slots import Seat

TableKey = tuple[int, tuple[tuple[str, int], ...]]  # size, (identity, weight) by identity
BackendKey = tuple[str, str, IPAddress]  # pool, name, address
ServiceKey = tuple[IPAddress, str, int]  # VIP, protocol, port


def service_keys(forwarding: Forwarding) -> list[ServiceKey]:
    """Return what identifies each service across reloads."""
    return [(s.vip, s.protocol, s.port) for s in forwarding.services]


def backend_keys(forwarding: Forwarding) -> list[BackendKey]:
    """Return what identifies each backend across reloads; another address is another backend."""
    return [(p.name, m.name, m.address) for p in forwarding.pools for m in p.members]


def ranked(pool: PoolState) -> list[Member]:
    """Return a pool's members in ascending order of identity, as tables number them."""
    return [pool.members[i] for i in maglev.rank([m.name for m in pool.members])]


def table_key(pool: PoolState) -> TableKey:
    """Return what a Maglev table depends on: pools that agree on it share one."""
    return pool.table_size, tuple((m.name, m.effective_weight) for m in ranked(pool))


def needs_table(key: TableKey) -> bool:
    """Whether any backend takes part."""
    return any(weight for _name, weight in key[1])


@dataclass
class Layout:
    """A snapshot in the making: parts that hold no offsets first, then the rest at its place."""

    forwarding: Forwarding
    service_seats: Mapping[ServiceKey, Seat]
    backend_seats: Mapping[BackendKey, Seat]
    tables: Mapping[TableKey, int]  # arena offsets
    _parts: list[bytes] = field(default_factory=list)
    _offsets: dict[str, tuple[int, int]] = field(default_factory=dict)  # name -> (relative, rows)
    _end: int = SNAPSHOT_BYTES

    def __post_init__(self) -> None:
        """Build everything whose content does not depend on where the block will be."""
        self._vips = sorted({s.vip for s in self.forwarding.services}, key=_address_order)
        slots = hash_slots(len(self._vips))
        self._add("vips", pack_vips(self._vips, slots), slots)
        rows, paths = self._backends_and_paths()
        self._add("backends", pack_backends(rows), len(rows))
        self._add("paths", pack_paths(paths), len(paths))
        for pool in self.forwarding.pools:
            seats = [self.backend_seats[pool.name, m.name, m.address].slot for m in ranked(pool)]
            self._add(f"pool {pool.name}", pack_members(seats), len(seats))

    def _add(self, name: str, data: bytes, rows: int) -> None:
        self._offsets[name] = (self._end, rows)
        self._parts.append(data.ljust(aligned(len(data)), b"\0"))
        self._end += aligned(len(data))

    def _backends_and_paths(self) -> tuple[list[BackendRow], list[PathRow]]:
        top = max((seat.slot for seat in self.backend_seats.values()), default=-1)
        rows = [BackendRow()] * (top + 1)
        paths: list[PathRow] = []
        for pool in self.forwarding.pools:
            for member in pool.members:
                seat = self.backend_seats[pool.name, member.name, member.address]
                rows[seat.slot] = BackendRow(len(paths), len(member.paths), seat.incarnation)
                paths += [_path_row(path) for path in member.paths]
        return rows, paths

    @property
    def size(self) -> int:
        """Bytes of the whole block."""
        # A probe table's size in bytes depends on the number of its slots only.
        return self._end + aligned(len(pack_services([], self._service_slots)))

    @property
    def _service_slots(self) -> int:
        return hash_slots(len(self.forwarding.services))

    def build(self, generation: int, base: int) -> bytes:
        """Return the block for arena offset ``base``."""
        services = pack_services(self._service_rows(base), self._service_slots)
        absolute = {name: (base + at, rows) for name, (at, rows) in self._offsets.items()}
        absolute["services"] = (base + self._end, self._service_slots)
        header = pack_snapshot(generation, self.forwarding.hash_key, absolute)
        return header.ljust(SNAPSHOT_BYTES, b"\0") + b"".join(self._parts) + services

    def _service_rows(self, base: int) -> list[ServiceRow]:
        vip_ids = {vip: number for number, vip in enumerate(self._vips)}
        pools = {pool.name: (table_key(pool), pool) for pool in self.forwarding.pools}
        rows = []
        for service in self.forwarding.services:
            key, pool = pools[service.pool]
            at, members = self._offsets[f"pool {pool.name}"]
            rows.append(
                ServiceRow(
                    vip=vip_ids[service.vip],
                    protocol=service.protocol,
                    port=service.port,
                    affinity=service.affinity,
                    counter=self.service_seats[service.vip, service.protocol, service.port].slot,
                    members=members,
                    members_offset=base + at,
                    table_offset=self.tables.get(key, 0),
                    table_size=pool.table_size if key in self.tables else 0,
                )
            )
        return rows


def _address_order(address: IPv4Address | IPv6Address) -> tuple[int, bytes]:
    return address.version, address.packed


def _path_row(path: PathSpec) -> PathRow:
    header = outer_header(path.dst_mac, path.src_mac, path.source, path.destination)
    return PathRow(header, path.tx, path.mtu)
