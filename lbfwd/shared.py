"""The layouts of shared memory, as Python values: packed to bytes and read back.

``_ring.h`` defines every layout; nothing here knows an offset. ``tables`` decides what is written
where, and when.
"""

import errno
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import add
from typing import Any, NamedTuple

from lbfwd._ringlib import ffi, lib
from lbfwd.encap import IPAddress, needs_identification
from lbfwd.slots import Columns, Tally

CONTROL_BYTES: int = ffi.sizeof("struct lbfwd_control")
FLOWS_HEADER: int = lib.LBFWD_FLOWS_HEADER
BUCKET_BYTES: int = ffi.sizeof("struct lbfwd_flow_bucket")
FLOW_WAYS: int = lib.LBFWD_FLOW_WAYS
COUNTERS_BYTES: int = ffi.sizeof("struct lbfwd_counters")  # of one worker
UNIT = 64  # alignment of everything in the arena
ARENA_MOST: int = lib.LBFWD_ARENA_MOST
PATH_BYTES: int = ffi.sizeof("struct lbfwd_path")
_SNAPSHOT_MAGIC = int.from_bytes(b"lbfwdsnp", "little")
_AFFINITIES = {"5-tuple": lib.LBFWD_AFFINITY_5TUPLE, "source": lib.LBFWD_AFFINITY_SOURCE}
_EMPTIES = {"drop": lib.LBFWD_EMPTY_DROP, "reject": lib.LBFWD_EMPTY_REJECT}
_ECHOES = {
    "reply": lib.LBFWD_ECHO_REPLY,
    "backend": lib.LBFWD_ECHO_BACKEND,
    "drop": lib.LBFWD_ECHO_DROP,
}
PROTOCOLS = {"tcp": 6, "udp": 17}
_STATES = {
    "unconfirmed_s": lib.LBFWD_FLOW_UNCONFIRMED,
    "tcp_idle_s": lib.LBFWD_FLOW_TCP,
    "udp_idle_s": lib.LBFWD_FLOW_UDP,
    "tcp_closing_s": lib.LBFWD_FLOW_CLOSING,
}


class ServiceRow(NamedTuple):
    """One ``struct lbfwd_service`` without its pool."""

    vip: int
    protocol: str
    port: int
    affinity: str
    counter: int
    empty: str


class PoolRow(NamedTuple):
    """What a ``struct lbfwd_service`` says of its pool; offsets are within the arena."""

    members: int
    table_offset: int
    members_offset: int
    table_size: int
    pool: int


class BackendRow(NamedTuple):
    """One ``struct lbfwd_backend``; the number of its row is its slot.

    ``path_first``: arena offset of the first path, in paths; they lie one behind the other.
    """

    path_first: int = 0
    path_count: int = 0
    incarnation: int = 0
    pool: int = 0


@dataclass(frozen=True)
class PathRow:
    """One ``struct lbfwd_path``: a prebuilt outer header and where it leaves."""

    header: bytes
    tx: int
    mtu: int
    entropy_bits: int = 0


@dataclass(frozen=True)
class SlotView:
    """What a worker says of itself in its ``struct lbfwd_slot``."""

    heartbeat: int
    acknowledged: int
    quiescent: bool
    seen: int
    bursts: int
    waits: int
    frames: int
    sends: int


def aligned(size: int) -> int:
    """Round a size up to whole units."""
    return -(-size // UNIT) * UNIT


def hash_slots(entries: int) -> int:
    """Return how many slots an open-addressing table for so many entries has: at most half full."""
    return 1 << max(2, (2 * entries).bit_length())


def pack_vips(vips: Mapping[IPAddress, tuple[str, int]], slots: int) -> bytes:
    """Return the look-up table of VIPs; a VIP's id is its place in ``vips``.

    ``vips``: with the protocol and port of the service that an echo request is taken to.
    """
    rows = ffi.new("struct lbfwd_vip[]", slots)
    for number, (vip, (protocol, port)) in enumerate(vips.items()):
        row = ffi.new("struct lbfwd_vip *")
        row.echo_protocol, row.echo_port = PROTOCOLS[protocol], port
        row.address = list(vip.packed.ljust(16, b"\0"))
        row.id, row.family = number, vip.version
        _check("insert a VIP", lib.lbfwd_vip_insert(rows, slots, row))
    return bytes(ffi.buffer(rows))


def pack_services(services: Sequence[ServiceRow], slots: int) -> tuple[bytes, list[int]]:
    """Return the look-up table of services by VIP, protocol and port, and each service's place.

    Their pools are not there yet. ``counter`` must be another one for each.
    """
    rows = ffi.new("struct lbfwd_service[]", slots)
    for service in services:
        row = ffi.new("struct lbfwd_service *")
        row.vip, row.port, row.counter = service.vip, service.port, service.counter
        row.protocol = PROTOCOLS[service.protocol]
        row.affinity = _AFFINITIES[service.affinity]
        row.empty = _EMPTIES[service.empty]
        _check("insert a service", lib.lbfwd_service_insert(rows, slots, row))
    places = {row.counter: place for place, row in enumerate(rows) if row.protocol}
    return bytes(ffi.buffer(rows)), [places[service.counter] for service in services]


def join_pools(services: bytes | bytearray, pools: Iterable[tuple[int, PoolRow]]) -> bytearray:
    """Return the look-up table of services with their pools, given by the services' places."""
    joined = bytearray(services)
    with ffi.from_buffer("struct lbfwd_service[]", joined, require_writable=True) as rows:
        for place, pool in pools:
            row = rows[place]
            row.members, row.table_offset, row.members_offset, row.table_size, row.pool = pool
    return joined


def pack_backends(
    before: bytes | bytearray, rows: int, changed: Iterable[tuple[int, BackendRow]]
) -> bytearray:
    """Return the array of backends, by slot: what it was ``before``, with rows changed."""
    packed = bytearray(rows * ffi.sizeof("struct lbfwd_backend"))
    packed[: len(before)] = before
    with ffi.from_buffer("struct lbfwd_backend[]", packed, require_writable=True) as array:
        for slot, row in changed:
            array[slot] = (row.path_first, row.path_count, 0, row.incarnation, row.pool)
    return packed


def pack_paths(paths: Sequence[PathRow]) -> bytes:
    """Return the array of paths."""
    rows = ffi.new("struct lbfwd_path[]", len(paths))
    for row, path in zip(rows, paths, strict=True):
        ffi.memmove(row.header, path.header, len(path.header))
        row.header_len, row.tx = len(path.header), path.tx
        row.mtu = min(path.mtu, 0xFFFF)
        row.entropy_bits = path.entropy_bits
        row.fragments = needs_identification(path.header)
    return bytes(ffi.buffer(rows))


def pack_members(slots: Sequence[int]) -> bytes:
    """Return a pool's members: backend slots in ascending order of identity."""
    return bytes(ffi.buffer(ffi.new("uint32_t[]", list(slots))))


@dataclass(frozen=True)
class NodeRow:
    """What a snapshot says of the node as a whole; times in seconds."""

    hash_key: bytes
    echo: str
    unconfirmed_s: int
    tcp_idle_s: int
    tcp_closing_s: int
    udp_idle_s: int
    here: int = 0


def pack_snapshot(generation: int, node: NodeRow, parts: dict[str, tuple[int, int]]) -> bytes:
    """Return a snapshot's header.

    ``parts``: (offset in the arena, number of rows) of ``vips``, ``services``, ``backends``,
    ``peers``, ``peer_paths`` and ``peer_table``.
    """
    row = ffi.new("struct lbfwd_snapshot *")
    row.magic, row.generation = _SNAPSHOT_MAGIC, generation
    row.hash_key = [int.from_bytes(node.hash_key[i : i + 8], "little") for i in (0, 8)]
    row.echo = _ECHOES[node.echo]
    for name, state in _STATES.items():
        row.lifetimes_s[state] = getattr(node, name)
    row.vips_offset, row.vip_slots = parts["vips"]
    row.services_offset, row.service_slots = parts["services"]
    row.backends_offset, row.backends = parts["backends"]
    row.peers_offset, row.peers = parts["peers"]
    row.peer_paths_offset, row.peer_paths = parts["peer_paths"]
    row.peer_table_offset, row.peer_table_size = parts["peer_table"]
    row.here = node.here
    return bytes(ffi.buffer(row))


SNAPSHOT_BYTES: int = aligned(ffi.sizeof("struct lbfwd_snapshot"))


def check_snapshot(arena: Any, offset: int) -> None:
    """Verify a snapshot in the arena as a worker will. Raises OSError (EBADMSG)."""
    with ffi.from_buffer(arena) as view:  # let go of it also on failure: it shall be unmapped
        _check("verify the snapshot", lib.lbfwd_snapshot_check(view, len(view), offset))


class Control:
    """The control file: published generation, and one slot a worker."""

    def __init__(self, memory: Any) -> None:
        """Use a writable buffer of CONTROL_BYTES."""
        self._memory = ffi.from_buffer(memory, require_writable=True)
        self._control = ffi.cast("struct lbfwd_control *", self._memory)

    def init(self, worker_slots: int, arena_bytes: int) -> None:
        """Write an empty control file."""
        size = len(self._memory)
        result = lib.lbfwd_control_init(self._control, size, worker_slots, arena_bytes)
        _check("initialize the control file", result)

    def set_arena_bytes(self, size: int) -> None:
        """Tell the workers how large the arena is now; seen with the next generation."""
        self._control.arena_bytes = size

    def publish(self, generation: int, offset: int) -> None:
        """Make a snapshot the one in force: one store."""
        lib.lbfwd_publish(self._control, generation, offset)

    def acknowledged(self, slot: int, generation: int) -> bool:
        """Whether the slot's worker uses the generation, or refers to none."""
        return bool(lib.lbfwd_acknowledged(self._control, slot, generation))

    def slot(self, index: int) -> SlotView:
        """Read what a worker says of itself."""
        row = self._control.slots[index]
        return SlotView(
            heartbeat=row.heartbeat,
            acknowledged=row.acknowledged,
            quiescent=bool(row.quiescent),
            seen=row.seen,
            bursts=row.bursts,
            waits=row.waits,
            frames=row.frames,
            sends=row.sends,
        )

    def release(self) -> None:
        """Let go of the buffer, so that it can be unmapped."""
        ffi.release(self._memory)


def published_generation(data: bytes) -> int:
    """Return the generation in force, read from the beginning of a control file; 0: none yet.

    Raises ValueError where there is less than CONTROL_BYTES.
    """
    if len(data) < CONTROL_BYTES:
        raise ValueError(f"control file of {len(data)} bytes: it has {CONTROL_BYTES}")
    with ffi.from_buffer("struct lbfwd_control *", data) as control:
        return int(control.published) >> 32


class CountersView:
    """The counters file: one block a worker; read only."""

    def __init__(self, memory: Any, workers: int) -> None:
        """Use a buffer of ``workers`` times COUNTERS_BYTES."""
        self._memory = ffi.from_buffer(memory)
        self._rows = ffi.cast("struct lbfwd_counters *", self._memory)
        self._workers = range(workers)

    def service(self, slot: int) -> Tally:
        """Return the counts of a service, over all workers."""
        return self._tally("services", "new_flows_of_services", slot)

    def backend(self, slot: int) -> Tally:
        """Return the counts of a backend, over all workers."""
        return self._tally("backends", "new_flows_to_backends", slot)

    def services(self, slots: int) -> Columns:
        """Return the counts of services by slot, over all workers."""
        return self._columns("services", "new_flows_of_services", slots)

    def backends(self, slots: int) -> Columns:
        """Return the counts of backends by slot, over all workers."""
        return self._columns("backends", "new_flows_to_backends", slots)

    def _tally(self, traffic: str, flows: str, slot: int) -> Tally:
        workers = [self._rows[worker] for worker in self._workers]
        rows = [getattr(worker, traffic)[slot] for worker in workers]
        new = sum(getattr(worker, flows)[slot] for worker in workers)
        return sum(row.packets for row in rows), sum(row.bytes for row in rows), new

    def _columns(self, traffic: str, flows: str, slots: int) -> Columns:
        both = self._sums(traffic, 2 * slots)  # struct lbfwd_counter: packets, bytes
        return both[::2], both[1::2], self._sums(flows, slots)

    def _sums(self, table: str, words: int) -> list[int]:
        """Read whole tables: field by field 100,000 of them take a second."""
        sums: Iterable[int] = ()
        for worker in self._workers:
            column = ffi.buffer(ffi.addressof(self._rows[worker], table), 8 * words)
            found = memoryview(column).cast("Q").tolist() if words else []
            sums = map(add, sums, found) if sums else found
        return list(sums)

    def event(self, number: int) -> int:
        """Return how often something happened, over all workers."""
        return sum(self._rows[worker].events[number] for worker in self._workers)

    def drop(self, reason: int) -> int:
        """Return how many packets were dropped for a reason, over all workers."""
        return sum(self._rows[worker].drops[reason] for worker in self._workers)

    def release(self) -> None:
        """Let go of the buffer, so that it can be unmapped."""
        ffi.release(self._memory)


def init_flows(memory: Any, workers: int, buckets: int) -> None:
    """Write the header of a flow tables file."""
    with ffi.from_buffer(memory, require_writable=True) as view:
        result = lib.lbfwd_flows_init(view, len(view), workers, buckets)
    _check("initialize the flow tables", result)


@dataclass(frozen=True)
class FlowRow:
    """Live flows of one service at one backend, by slots; ``closing`` of them have seen an end."""

    service: int
    backend: int
    incarnation: int
    live: int
    closing: int


INCARNATION_MASK = 0xFFF  # as much of an incarnation as a flow table entry holds


def count_flows(memory: Any, times: Mapping[str, int], now_s: int) -> list[FlowRow]:
    """Count the live flows in a flow tables file; blocks, without the GIL.

    ``times``: a field of FlowTimes each, seconds. ``now_s``: CLOCK_MONOTONIC. OSError (EBADMSG):
    it is no such file.
    """
    lifetimes, count = _lifetimes(times), 1024
    with ffi.from_buffer(memory) as view:
        while True:
            rows = ffi.new("struct lbfwd_flow_row[]", count)
            result = lib.lbfwd_flow_census(view, len(view), lifetimes, now_s & 0xFFFF, rows, count)
            if result != -errno.ENOSPC:
                break
            count *= 4
    _check("count the flows", result)
    return [
        FlowRow(row.service, row.backend, row.incarnation, row.live, row.closing)
        for row in rows
        if row.live
    ]


def flows_in_use(memory: Any, times: Mapping[str, int], now_s: int, worker: int) -> int:
    """Count the live entries of one worker's flow table, as ``count_flows`` does for all."""
    with ffi.from_buffer(memory) as view:
        live: int = lib.lbfwd_flows_in_use(
            view, len(view), _lifetimes(times), now_s & 0xFFFF, worker
        )
    _check("count a worker's flows", live)
    return live


def _lifetimes(times: Mapping[str, int]) -> Any:
    lifetimes = ffi.new("uint16_t[8]")
    for name, state in _STATES.items():
        lifetimes[state] = times[name]
    return lifetimes


def _check(operation: str, result: int) -> None:
    if result < 0:
        raise OSError(-result, f"{operation} failed")
