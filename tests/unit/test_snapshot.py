"""The block of bytes that a generation is, read back with the contract's own layouts."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from lbfwd._ringlib import ffi

from lbfwd.forwarding import Forwarding, PoolState
from lbfwd.peers import pack_peers
from lbfwd.shared import pack_backends
from lbfwd.slots import Seat
from lbfwd.snapshot import (
    Catalogue,
    Layout,
    PlacedPool,
    TableKey,
    needs_table,
    pack_pool,
    ranked,
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


def seats(state: Forwarding) -> dict[str, Seat]:
    members = [member for pool in state.pools for member in pool.members]
    return {member.name: Seat(2 * n, n + 5) for n, member in enumerate(members)}


class Block:
    """A built block as it will lie in the arena at BASE; the pools' blocks lie behind it."""

    def __init__(self, state: Forwarding) -> None:
        pools, at, behind = {}, BASE + 4096, b""
        for pool in state.pools:
            members = ranked(pool)
            table = 64 if pool is state.pools[0] else 0
            placed = PlacedPool(pool, members, seats(state), table, at + len(behind))
            behind += pack_pool(members, seats(state), {})
            behind += bytes(-len(behind) % 64)
            pools[pool.name] = placed
        rows = 2 * len(seats(state)) - 1
        backends = pack_backends(b"", rows, (r for p in pools.values() for r in p.rows()))
        catalogue = Catalogue(state.services, range(3, 3 + len(state.services)))
        self.layout = Layout(
            catalogue, backends, rows, catalogue.pack(pools), pack_peers(state.peers)
        )
        self.pieces = list(self.layout.build(state, 77, BASE))
        self._arena = bytearray(at) + behind
        for place, data in self.pieces:
            self._arena[place : place + len(data)] = data
        self.header = self.at("struct lbfwd_snapshot", BASE)

    def at(self, kind: str, offset: int) -> Any:
        return ffi.cast(f"{kind} *", ffi.from_buffer(self._arena) + offset)

    def rows(self, part: str, slots: str) -> list[Any]:
        kind = f"struct lbfwd_{part.removesuffix('s')}"
        array = self.at(kind, getattr(self.header, f"{part}_offset"))
        return [array[n] for n in range(getattr(self.header, slots))]

    def paths(self, backend: Any) -> list[Any]:
        first = self.at("struct lbfwd_path", 64 * backend.path_first)
        return [first[n] for n in range(backend.path_count)]

    def services(self) -> dict[tuple[int, int], Any]:
        rows = self.rows("services", "service_slots")
        return {(row.protocol, row.port): row for row in rows if row.protocol}


def test_its_pieces_fill_it_without_overlap() -> None:
    block = Block(STATE)
    ends = [BASE]
    for place, data in sorted(block.pieces):
        assert place % 64 == 0
        assert ends[-1] <= place < ends[-1] + 64
        ends.append(place + len(data))
    assert block.layout.size % 64 == 0
    assert ends[-1] <= BASE + block.layout.size < ends[-1] + 64


def test_the_header() -> None:
    header = Block(STATE).header
    assert bytes(ffi.buffer(ffi.addressof(header[0], "magic"), 8)) == b"lbfwdsnp"
    assert header.generation == 77
    assert bytes(ffi.buffer(header.hash_key)) == bench.SECRET
    for part in ("vips", "services", "backends"):
        offset = getattr(header, f"{part}_offset")
        assert offset % 64 == 0
        assert BASE < offset < BASE + Block(STATE).layout.size


def test_backends_stand_at_their_slots() -> None:
    block = Block(STATE)
    rows = block.rows("backends", "backends")
    assert [(r.path_count, r.incarnation) for r in rows] == [
        (1, 5), (0, 0), (0, 6), (0, 0), (1, 7), (0, 0), (1, 8)
    ]  # fmt: skip
    paths = [path for slot in (0, 4, 6) for path in block.paths(rows[slot])]
    macs = [bytes(ffi.buffer(path.header))[:6] for path in paths]
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
    block = Block(state)
    (path,) = block.paths(block.rows("backends", "backends")[0])
    assert path.mtu == 65535


def test_backends_know_their_pool() -> None:
    block = Block(STATE)
    pools = [block.rows("backends", "backends")[slot].pool for slot in (0, 2, 4, 6)]
    services = block.services()
    assert pools == [services[6, 80].pool] * 3 + [services[6, 0].pool]
    assert services[17, 53].pool == services[6, 80].pool != services[6, 0].pool


def key(members: Sequence[Any], name: str = "p", size: int = 251) -> TableKey:
    pool = bench.pool(name, members, size)
    return table_key(pool, ranked(pool))


def test_what_a_table_depends_on() -> None:
    shuffled = random.Random(3).sample(MEMBERS, 3)
    assert key(shuffled, "another name") == key(MEMBERS)
    assert key(MEMBERS, size=257) != key(MEMBERS)
    assert key(MEMBERS[1:]) != key(MEMBERS)
    assert key([replace(MEMBERS[0], weight=2), *MEMBERS[1:]]) != key(MEMBERS)
    assert key([replace(MEMBERS[0], paths=()), *MEMBERS[1:]]) != key(MEMBERS)
    assert [m.name for m in ranked(bench.pool("p", shuffled))] == ["b10", "b11", "b12"]


def test_who_needs_a_table() -> None:
    assert not needs_table(key([replace(MEMBERS[0], weight=0), MEMBERS[1]]))
    assert needs_table(key(MEMBERS))


def placed(pool: PoolState) -> PlacedPool:
    return PlacedPool(pool, ranked(pool), SEATS, 64, 640)


SEATS = {f"b{n}": Seat(n, 1) for n in (10, 11, 12)}


def test_when_only_weights_differ_the_block_is_the_same() -> None:
    before = placed(bench.pool("p", MEMBERS))
    heavier = [replace(m, weight=m.weight + 1) for m in MEMBERS]
    assert before.same_block(ranked(bench.pool("p", heavier)), SEATS)
    assert pack_pool(ranked(bench.pool("p", heavier)), SEATS, {}) == pack_pool(
        before.members, SEATS, {}
    )
    dark = [replace(MEMBERS[0], paths=()), *MEMBERS[1:]]
    assert not before.same_block(ranked(bench.pool("p", dark)), SEATS)
    assert not before.same_block(before.members, dict(SEATS)), "other seats"


def test_a_patched_table_of_services_is_the_one_that_would_be_packed() -> None:
    names = {"p": 640, "q": 1280, "r": 1920}
    services = [bench.service(bench.VIP4, "tcp", 80 + n, name) for n, name in enumerate("pqpqq")]
    catalogue = Catalogue(services, range(len(services)))
    pools = {
        n: replace(placed(bench.pool("p", MEMBERS)), block=block) for n, block in names.items()
    }
    moved = pools | {n: replace(pools[n], block=names[n] + 6400) for n in ("q", "r")}
    packed = catalogue.pack(pools)
    assert catalogue.patch(packed, moved, ["q", "r"]) == catalogue.pack(moved) != packed
    assert packed == catalogue.pack(pools), "the last generation's is as it was"
    del moved["p"]
    with pytest.raises(KeyError, match="p"):
        catalogue.patch(packed, moved, [])
