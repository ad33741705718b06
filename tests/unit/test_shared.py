"""Shared memory that is not what it should be is refused, and nobody crashes over it."""

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lbfwd._ringlib import ffi

from lbfwd import ring, shared
from lbfwd.tables import Tables
from tests.packet import bench
from tests.packet.bench import Bench, BenchMaker
from tests.packet.crafted import frame
from tests.packet.fleet import peers
from tests.packet.memory import Published, published

TCP4 = frame(4, "tcp")
UNIT = 64


@pytest.fixture
def node(make_bench: BenchMaker) -> Bench:
    return make_bench(replace(bench.all_combinations(), peers=peers()))


@pytest.fixture
def tables(tmp_path: Path) -> Iterator[Tables]:
    tables = Tables.create(tmp_path, 2, 1024)
    yield tables
    tables.close(unlink=True)


# ---- files ----


def refused(slot: int, files: tuple[int, ...]) -> None:
    with pytest.raises(OSError, match="worker: map the shared state: Bad message") as caught:
        ring.Worker(slot, *files)
    assert caught.value.errno == errno.EBADMSG


@pytest.mark.parametrize(
    "field", ["magic", "abi", "bytes"], ids=["magic", "ABI version", "size it says it has"]
)
@pytest.mark.parametrize("change", [1, -1])
def test_a_control_file_of_another_kind(tables: Tables, field: str, change: int) -> None:
    tables.publish(bench.all_combinations())
    with published(tables) as state:
        setattr(state.control, field, getattr(state.control, field) + change)
    refused(0, tables.files())


def test_a_short_control_file(tables: Tables) -> None:
    control, *others = tables.files()
    for size in (0, 1, shared.CONTROL_BYTES - 1):
        short = os.memfd_create("lbfwd-test")
        os.write(short, os.pread(control, size, 0))
        refused(0, (short, *others))
        os.close(short)


@pytest.mark.parametrize("field", ["magic", "abi", "workers", "buckets"])
def test_a_flows_file_of_another_kind(tables: Tables, field: str) -> None:
    """More workers or buckets than the file has room for, or none; another kind or version."""
    fd = tables.files()[3]
    whole = os.pread(fd, ffi.sizeof("struct lbfwd_flows_header"), 0)
    for value in (0, 2**32 - 1):
        header = ffi.new("struct lbfwd_flows_header *")
        ffi.memmove(header, whole, len(whole))
        setattr(header, field, value)
        os.pwrite(fd, bytes(ffi.buffer(header)), 0)
        refused(0, tables.files())
    os.pwrite(fd, whole, 0)
    ring.Worker(0, *tables.files()).close()


def test_a_short_flows_file(tables: Tables) -> None:
    *others, flows = tables.files()
    whole = os.pread(flows, os.fstat(flows).st_size, 0)
    for size in (0, 1, len(whole) - 1):
        short = os.memfd_create("lbfwd-test")
        os.write(short, whole[:size])
        refused(0, (*others, short))
        os.close(short)


@pytest.mark.parametrize(
    ("size", "workers", "buckets"), [(8, 1, 1), (64, 0, 1), (64, 65, 1), (64, 1, 0)]
)
def test_impossible_flow_tables_are_not_made(size: int, workers: int, buckets: int) -> None:
    with pytest.raises(OSError, match="initialize the flow tables failed") as caught:
        shared.init_flows(bytearray(size), workers, buckets)
    assert caught.value.errno == errno.EINVAL


def test_counters_that_do_not_hold_the_slot(tables: Tables) -> None:
    ring.Worker(1, *tables.files()).close()
    refused(2, tables.files())


def test_descriptors_that_are_no_files(tables: Tables) -> None:
    control, arena, counters, _flows = tables.files()
    refused(0, (999, arena, 999, 999))
    refused(0, (control, arena, 999, 999))
    refused(0, (control, arena, counters, 999))


def test_an_arena_shorter_than_it_says(node: Bench) -> None:
    """The size is looked at before the mapping is: no SIGBUS."""
    with published(node.tables) as state:
        state.control.arena_bytes += 1 << 30
        state.publish_again()
    node.assert_dropped(node.forward(TCP4), "no_vip")


# ---- snapshots ----


Value = int | Callable[[Published], int]


def set_to(kind: str, field: str, value: Value) -> Callable[[Published], None]:
    def corrupt(state: Published) -> None:
        rows = getattr(state, kind)
        row = rows[0] if kind == "backends" else rows
        setattr(row, field, value if isinstance(value, int) else value(state))

    return corrupt


def no_free_vip(state: Published) -> None:
    for number in range(state.snapshot.vip_slots):
        state.vips[number].family = 4


def no_free_service(state: Published) -> None:
    taken = state.service
    for number in range(state.snapshot.service_slots):
        state.services[number] = taken


def arena_end(state: Published) -> int:
    return state.arena_bytes


PLACES: dict[str, Value] = {
    "the arena's end": arena_end,
    "the last unit": lambda state: state.arena_bytes - UNIT,
    "beyond the arena": lambda state: state.arena_bytes + UNIT,
    "the top of the address space": 2**64 - UNIT,
    "an odd place": 8,
}
CORRUPTIONS: dict[str, Callable[[Published], None]] = {
    "magic": set_to("snapshot", "magic", 1),
    **{
        f"{part} at {name}": set_to("snapshot", f"{part}_offset", value)
        for part in ("vips", "services", "backends", "peers", "peer_paths", "peer_table")
        for name, value in PLACES.items()
    },
    **{f"{n} peers": set_to("snapshot", "peers", n) for n in (257, 2**32 - 1)},
    "a peer table that is too long": set_to("snapshot", "peer_table_size", 2**32 - 1),
    "too many paths to peers": set_to("snapshot", "peer_paths", 2**32 - 1),
    "no such peer is here": set_to("snapshot", "here", 3),
    **{
        f"{count} {what}": set_to("snapshot", what, count)
        for what in ("vip_slots", "service_slots")
        for count in (0, 3, 6, 2**31, 2**32 - 1)
    },
    **{f"{count} backends": set_to("snapshot", "backends", count) for count in (131073, 2**32 - 1)},
}
# Of the rows: too many for a worker to look at between two bursts.
CORRUPT_ROWS: dict[str, Callable[[Published], None]] = {
    "no free VIP slot": no_free_vip,
    "no free service slot": no_free_service,
    "a table beyond the arena": set_to("service", "table_offset", arena_end),
    "a table at an odd place": set_to("service", "table_offset", 2),
    "a table that is too long": set_to("service", "table_size", 2**32 - 1),
    "members beyond the arena": set_to("service", "members_offset", arena_end),
    "members at 2^64 - 64": set_to("service", "members_offset", 2**64 - UNIT),
    "too many members": set_to("service", "members", 2**32 - 1),
    "a counter that is none": set_to("service", "counter", ring.MAX_SERVICES),
    "a path at the arena's end": set_to("backends", "path_first", lambda s: s.arena_bytes // UNIT),
    "a path that is none": set_to("backends", "path_first", lambda s: s.offset // UNIT),
    "a sum that wraps": set_to("backends", "path_first", 2**32 - 1),
    "too many paths": set_to("backends", "path_count", 65535),
    "no such TX ring": set_to("path", "tx", ring.MAX_TX),
    "a peer's path that is another's": set_to("peer", "path_first", 2),
    "too many paths of a peer": set_to("peer", "path_count", 65535),
    "no TX ring to a peer": set_to("peer_path", "tx", ring.MAX_TX),
    "33 bits of entropy": set_to("path", "entropy_bits", 33),
    **{
        f"an outer header of {n} bytes": set_to("path", "header_len", n)
        for n in (0, 37, 39, 57, 59, 255)
    },
}


@pytest.mark.parametrize("corrupt", CORRUPTIONS.values(), ids=CORRUPTIONS.keys())
def test_a_corrupted_snapshot(node: Bench, corrupt: Callable[[Published], None]) -> None:
    """Neither the supervisor's check nor a worker accepts it, and the worker does not say so."""
    node.assert_forwarded(TCP4, node.forward(TCP4), [TCP4[14:]])
    acknowledged = node.tables.slot(0).acknowledged
    with published(node.tables) as state:
        corrupt(state)
        check_refuses(state)
        state.publish_again()
    node.assert_dropped(node.forward(TCP4), "no_vip")
    assert node.tables.slot(0).acknowledged == acknowledged


@pytest.mark.parametrize("corrupt", CORRUPT_ROWS.values(), ids=CORRUPT_ROWS.keys())
def test_corrupted_rows(node: Bench, corrupt: Callable[[Published], None]) -> None:
    """They are never published: the supervisor has looked at every row."""
    with published(node.tables) as state:
        shared.check_snapshot(state.arena, state.offset)
        corrupt(state)
        check_refuses(state)


def check_refuses(state: Published) -> None:
    with pytest.raises(OSError, match="verify the snapshot failed") as caught:
        shared.check_snapshot(state.arena, state.offset)
    assert caught.value.errno == errno.EBADMSG


@pytest.mark.parametrize("offset", ["the last unit", "the end", "beyond", "odd", "the highest"])
def test_a_snapshot_elsewhere(node: Bench, offset: str) -> None:
    with published(node.tables) as state:
        state.offset = {
            "the last unit": state.arena_bytes - UNIT,
            "the end": state.arena_bytes,
            "beyond": state.arena_bytes + UNIT,
            "odd": state.offset + 8,
            "the highest": (2**32 - 1) * UNIT,
        }[offset]
        check_refuses(state)
        state.control.published = (2 << 32) + state.offset // UNIT
        if offset == "odd":  # an offset in units cannot be odd: half a snapshot instead
            state.control.published += 1
    node.assert_dropped(node.forward(TCP4), "no_vip")


def test_a_worker_goes_on_when_a_good_state_follows(node: Bench) -> None:
    with published(node.tables) as state:
        state.snapshot.magic += 1
        state.publish_again()
    node.assert_dropped(node.forward(TCP4), "no_vip")
    with published(node.tables) as state:
        state.snapshot.magic -= 1
        state.publish_again()
    node.assert_forwarded(TCP4, node.forward(TCP4), [TCP4[14:]])


def test_an_old_state_whose_memory_may_be_in_use_again_is_not_used(node: Bench) -> None:
    """A worker that waited held no reference: what it knew may have been overwritten since."""
    node.forward(TCP4)
    assert node.tables.slot(0).quiescent
    with published(node.tables) as state:
        ffi.memmove(state.snapshot, b"\xff" * 64, 64)
        state.publish_again()
    node.assert_dropped(node.forward(TCP4), "no_vip")


@pytest.mark.parametrize("member", [7, 8, 65534, 65535])
def test_a_table_entry_that_is_no_member(node: Bench, member: int) -> None:
    """Entries are too many to be checked beforehand; each is checked when it is used."""
    service, _backend, _hop = node.choose(TCP4)
    with published(node.tables) as state:
        for row in rows_of(state, 84):
            entries = state.at("uint16_t", row.table_offset)
            for slot in range(row.table_size):
                entries[slot] = member
    assert service.port == 84
    node.assert_dropped(node.forward(TCP4), "no_backend")


@pytest.mark.parametrize("slot", [14, 131072, 2**32 - 1])
def test_a_member_that_is_no_backend(node: Bench, slot: int) -> None:
    with published(node.tables) as state:
        for row in rows_of(state, 84):
            members = state.at("uint32_t", row.members_offset)
            for number in range(row.members):
                members[number] = slot
    node.assert_dropped(node.forward(TCP4), "no_backend")


def rows_of(state: Published, port: int) -> list[Any]:
    rows = (state.services[n] for n in range(state.snapshot.service_slots))
    return [row for row in rows if row.protocol and row.port == port]


# ---- values and bytes ----


@given(st.integers(0, 200_000))
def test_probe_tables_are_at_most_half_full(entries: int) -> None:
    slots = shared.hash_slots(entries)
    assert slots >= 2 * entries
    assert slots & (slots - 1) == 0
    assert slots > entries


@given(st.integers(0, 1 << 40))
def test_aligned(size: int) -> None:
    assert shared.aligned(size) % UNIT == 0
    assert 0 <= shared.aligned(size) - size < UNIT


def test_a_full_probe_table_is_an_error() -> None:
    vips = dict.fromkeys((ip_address(n + 1) for n in range(4)), ("tcp", 80))
    three, one = dict([*vips.items()][:3]), dict([*vips.items()][:1])
    assert len(shared.pack_vips(three, 4)) == 4 * ffi.sizeof("struct lbfwd_vip")
    with pytest.raises(OSError, match="insert a VIP failed") as caught:
        shared.pack_vips(vips, 4)
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(OSError, match="insert a VIP failed") as caught:
        shared.pack_vips(one, 3)
    assert caught.value.errno == errno.EINVAL


def test_every_vip_is_in_the_table_once() -> None:
    vips = [ip_address(0x0A000000 + n) for n in range(50)]
    vips += [ip_address((0xFD << 120) + n) for n in range(50)]
    slots = shared.hash_slots(len(vips))
    echo = {vip: ("udp", number) for number, vip in enumerate(vips)}
    rows = ffi.from_buffer("struct lbfwd_vip[]", shared.pack_vips(echo, slots))
    found = {
        row.id: (row.family, bytes(ffi.buffer(row.address)), row.echo_protocol, row.echo_port)
        for row in rows
        if row.family != 0
    }
    assert found == {n: (v.version, v.packed.ljust(16, b"\0"), 17, n) for n, v in enumerate(vips)}


def test_a_service_is_packed_as_given() -> None:
    row = shared.ServiceRow(3, "udp", 53, "source", 9, "reject")
    data, (place,) = shared.pack_services([row], 4)
    pool = shared.PoolRow(
        members=4, table_offset=6400, members_offset=12800, table_size=251, pool=7
    )
    rows = ffi.from_buffer("struct lbfwd_service[]", shared.join_pools(data, [(place, pool)]))
    (packed,) = [r for r in rows if r.protocol]
    assert (packed.vip, packed.protocol, packed.port, packed.affinity) == (3, 17, 53, 1)
    assert (packed.counter, packed.members, packed.members_offset) == (9, 4, 12800)
    assert (packed.table_offset, packed.table_size) == (6400, 251)
    assert (packed.pool, packed.empty) == (7, 1)


def test_the_layouts_are_what_other_sessions_rely_on() -> None:
    """A changed size or place is another ABI: LBFWD_ABI must change with it."""
    sizes = {
        name: ffi.sizeof(f"struct lbfwd_{name}")
        for name in (
            "vip",
            "service",
            "backend",
            "path",
            "snapshot",
            "slot",
            "live",
            "flow_entry",
            "peer",
        )
    }
    assert sizes == {
        "vip": 32,
        "service": 48,
        "backend": 16,
        "path": 64,
        "snapshot": 136,
        "peer": 32,
        "slot": 512,
        "live": 64,
        "flow_entry": 16,
    }
    assert ffi.offsetof("struct lbfwd_control", "published") == 32
    assert ffi.offsetof("struct lbfwd_control", "slots") % UNIT == 0
    assert shared.COUNTERS_BYTES % 65536 == 0, "every worker maps its block: whole pages"
    assert shared.CONTROL_BYTES == UNIT + ring.MAX_WORKERS * 512
