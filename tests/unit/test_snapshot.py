"""The block of bytes that a generation is, read back with the contract's own layouts."""

import random
from dataclasses import replace
from typing import Any

from lbfwd._ringlib import ffi

from lbfwd.forwarding import Forwarding
from lbfwd.slots import Seat
from lbfwd.snapshot import (
    Layout,
    backend_keys,
    needs_table,
    ranked,
    service_keys,
    table_key,
)
from tests.packet import bench

BASE = 640
MEMBERS = [bench.member(4, 12), bench.member(4, 11, paths=[]), bench.member(4, 10, weight=3)]
STATE = bench.forwarding(
    [
        bench.service(bench.VIP6, "udp", 53, "p", affinity="source"),
        bench.service(bench.VIP4, "tcp", 80, "p"),
        bench.service(bench.VIP4, "tcp", 0, "dark"),
    ],
    [bench.pool("p", MEMBERS), bench.pool("dark", [bench.member(6, 9, weight=0)], size=7)],
)


class Block:
    """A built block as it will lie in the arena at BASE."""

    def __init__(self, state: Forwarding) -> None:
        services = {key: Seat(n + 3, 1) for n, key in enumerate(service_keys(state))}
        backends = {key: Seat(2 * n, n + 5) for n, key in enumerate(backend_keys(state))}
        self.layout = Layout(state, services, backends, {table_key(state.pools[0]): 64})
        self.data = self.layout.build(77, BASE)
        self._arena = ffi.from_buffer(bytes(BASE) + self.data)
        self.header = self.at("struct lbfwd_snapshot", BASE)

    def at(self, kind: str, offset: int) -> Any:
        return ffi.cast(f"{kind} *", self._arena + offset)

    def rows(self, part: str, slots: str) -> list[Any]:
        kind = f"struct lbfwd_{part.removesuffix('s')}"
        array = self.at(kind, getattr(self.header, f"{part}_offset"))
        return [array[n] for n in range(getattr(self.header, slots))]

    def services(self) -> dict[tuple[int, int], Any]:
        rows = self.rows("services", "service_slots")
        return {(row.protocol, row.port): row for row in rows if row.protocol}


def test_its_size_is_known_before_its_place() -> None:
    block = Block(STATE)
    assert len(block.data) == block.layout.size
    assert block.layout.size % 64 == 0


def test_the_header() -> None:
    header = Block(STATE).header
    assert bytes(ffi.buffer(ffi.addressof(header[0], "magic"), 8)) == b"lbfwdsnp"
    assert header.generation == 77
    assert bytes(ffi.buffer(header.hash_key)) == bench.SECRET
    for part in ("vips", "services", "backends", "paths"):
        offset = getattr(header, f"{part}_offset")
        assert offset % 64 == 0
        assert BASE < offset < BASE + len(Block(STATE).data)


def test_backends_stand_at_their_slots() -> None:
    block = Block(STATE)
    rows = block.rows("backends", "backends")
    assert [(r.path_count, r.incarnation) for r in rows] == [
        (1, 5), (0, 0), (0, 6), (0, 0), (1, 7), (0, 0), (1, 8)
    ]  # fmt: skip
    paths = block.rows("paths", "paths")
    macs = [bytes(ffi.buffer(paths[rows[slot].path_first].header))[:6] for slot in (0, 4, 6)]
    assert macs == [m.paths[0].dst_mac for m in (MEMBERS[0], MEMBERS[2], STATE.pools[1].members[0])]
    assert [path.header_len for path in paths] == [38, 38, 58]
    assert [(path.tx, path.mtu) for path in paths] == [(0, 1500), (0, 1500), (1, 1500)]


def test_members_are_in_order_of_identity() -> None:
    """b10, b11, b12, whatever the file's order: the table's entries count on it."""
    block = Block(STATE)
    row = block.services()[6, 80]
    members = block.at("uint32_t", row.members_offset)
    assert [members[n] for n in range(row.members)] == [4, 2, 0]


def test_services() -> None:
    block = Block(STATE)
    rows = block.services()
    assert set(rows) == {(17, 53), (6, 80), (6, 0)}
    assert {key: row.counter for key, row in rows.items()} == {(17, 53): 3, (6, 80): 4, (6, 0): 5}
    assert {key: row.affinity for key, row in rows.items()} == {(17, 53): 1, (6, 80): 0, (6, 0): 0}
    assert (rows[6, 80].table_offset, rows[6, 80].table_size) == (64, 251)
    assert rows[6, 0].table_size == 0, "no backend takes part"
    vips = {row.id: row.family for row in block.rows("vips", "vip_slots") if row.family}
    assert vips[rows[17, 53].vip] == 6
    assert vips[rows[6, 80].vip] == vips[rows[6, 0].vip] == 4


def test_an_mtu_above_65535_is_65535() -> None:
    """Loopback and some virtual links say 65536; no IP packet is larger than 65535."""
    hop = bench.path(4, 11, mtu=65536)
    state = bench.forwarding(
        [bench.service(bench.VIP4, "tcp", 80, "p")],
        [bench.pool("p", [bench.member(4, 11, paths=[hop])])],
    )
    (path,) = Block(state).rows("paths", "paths")
    assert path.mtu == 65535


def test_what_a_table_depends_on() -> None:
    pool = bench.pool("p", MEMBERS)
    key = table_key(pool)
    shuffled = random.Random(2).sample(MEMBERS, 3)
    assert shuffled != MEMBERS
    assert table_key(bench.pool("another name", shuffled)) == key
    assert table_key(bench.pool("p", MEMBERS, size=257)) != key
    assert table_key(bench.pool("p", MEMBERS[1:])) != key
    assert table_key(bench.pool("p", [replace(MEMBERS[0], weight=2), *MEMBERS[1:]])) != key
    unreachable = [replace(MEMBERS[0], paths=()), *MEMBERS[1:]]
    assert table_key(bench.pool("p", unreachable)) != key
    assert [m.name for m in ranked(pool)] == ["b10", "b11", "b12"]


def test_who_needs_a_table() -> None:
    dark = [replace(MEMBERS[0], weight=0), MEMBERS[1]]
    assert not needs_table(table_key(bench.pool("p", dark)))
    assert needs_table(table_key(bench.pool("p", MEMBERS)))
