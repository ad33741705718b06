"""One forwarding state as the block of bytes that workers read. Pure. docs/architecture.md."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from lbfwd import maglev
from lbfwd.encap import IPAddress, outer_header
from lbfwd.forwarding import Forwarding, Member, PathSpec, PoolState, ServiceState
from lbfwd.shared import (
    SNAPSHOT_BYTES,
    BackendRow,
    NodeRow,
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
        # The first service of each VIP, by protocol and port, is the one that echo is taken to.
        first = sorted(self.forwarding.services, key=_service_order, reverse=True)
        self._vips = {s.vip: (s.protocol, s.port) for s in first}
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
        for number, pool in enumerate(self.forwarding.pools):
            for member in pool.members:
                seat = self.backend_seats[pool.name, member.name, member.address]
                rows[seat.slot] = BackendRow(
                    len(paths), len(member.paths), seat.incarnation, number
                )
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
        times = self.forwarding.flow_times
        node = NodeRow(
            hash_key=self.forwarding.hash_key,
            echo=self.forwarding.echo,
            unconfirmed_s=times.unconfirmed_s,
            tcp_idle_s=times.tcp_idle_s,
            tcp_closing_s=times.tcp_closing_s,
            udp_idle_s=times.udp_idle_s,
        )
        header = pack_snapshot(generation, node, absolute)
        return header.ljust(SNAPSHOT_BYTES, b"\0") + b"".join(self._parts) + services

    def _service_rows(self, base: int) -> list[ServiceRow]:
        vip_ids = {vip: number for number, vip in enumerate(self._vips)}
        pools = {
            pool.name: (table_key(pool), pool, number)
            for number, pool in enumerate(self.forwarding.pools)
        }
        rows = []
        for service in self.forwarding.services:
            key, pool, number = pools[service.pool]
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
                    pool=number,
                    empty=service.empty,
                )
            )
        return rows


def _service_order(service: ServiceState) -> tuple[int, bytes, str, int]:
    return service.vip.version, service.vip.packed, service.protocol, service.port


def _path_row(path: PathSpec) -> PathRow:
    ends = path.source, path.destination
    header = outer_header(path.dst_mac, path.src_mac, *ends, path.may_fragment)
    return PathRow(header, path.tx, path.mtu, path.entropy_bits)
