"""Pools in the arena: Maglev tables and blocks. What has not changed stays where it is.

A pool has not changed when it is the same object as in the last generation. So a change costs what
it changes, however many pools there are.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from lbfwd import maglev
from lbfwd.arena import Arena
from lbfwd.forwarding import PoolState
from lbfwd.shared import BackendRow, pack_backends
from lbfwd.slots import Moves, Seat, Slots
from lbfwd.snapshot import (
    BackendKey,
    PathMemo,
    PlacedPool,
    TableKey,
    backend_keys,
    needs_table,
    pack_pool,
    ranked,
    table_key,
)


@dataclass
class Draft:
    """The pools of a generation that is not in force yet."""

    moves: Moves[BackendKey]
    placed: dict[str, PlacedPool]
    changed: dict[str, PlacedPool] = field(default_factory=dict)
    """Of these, those that the last generation has not."""
    backends: bytearray = field(default_factory=bytearray)
    """The array of all backends, by slot."""
    made: list[int] = field(default_factory=list)
    """Arena offsets of what is new."""

    def extents(self) -> Iterator[int]:
        """Return the arena offsets that it refers to."""
        for place in self.placed.values():
            yield place.block
            if place.table:
                yield place.table


class Pools:
    """The pools of the generation in force, and tables of those that workers may still use."""

    def __init__(self, arena: Arena, seats: Slots[BackendKey]) -> None:
        """Begin without any."""
        self._arena = arena
        self._seats = seats
        self._placed: Mapping[str, PlacedPool] = {}
        self._backends = bytearray()
        self._tables: dict[TableKey, int] = {}
        self._keys: dict[int, TableKey] = {}  # the same by offset

    def draft(self, pools: Sequence[PoolState]) -> Draft:
        """Place what is new. Raises OSError or ValueError, and then nothing has changed."""
        kept, changed = dict[str, PlacedPool](), list[PoolState]()
        for pool in pools:
            place = self._placed.get(pool.name)
            if place is not None and place.pool is pool:
                kept[pool.name] = place
            else:
                changed.append(pool)
        moves = self._moves(changed, self._placed.keys() - {pool.name for pool in pools})
        draft = Draft(moves, kept)
        try:
            memo: PathMemo = {}
            for pool in changed:
                draft.changed[pool.name] = self._place(pool, draft, memo)
            draft.placed |= draft.changed
            rows = self._seats.rows(moves)
            draft.backends = pack_backends(self._backends, rows, self._rows(draft))
        except BaseException:
            self.undo(draft)
            raise
        return draft

    def commit(self, draft: Draft) -> None:
        """Make it the state in force."""
        self._seats.commit(draft.moves)
        self._placed, self._backends = draft.placed, draft.backends

    def undo(self, draft: Draft) -> None:
        """Give back what was made for a draft."""
        self.release(draft.made)

    def release(self, offsets: Iterable[int]) -> None:
        """Free places that nobody looks at any more."""
        for offset in offsets:
            if key := self._keys.pop(offset, None):
                del self._tables[key]
            self._arena.free(offset)

    def _moves(self, changed: Iterable[PoolState], gone: Iterable[str]) -> Moves[BackendKey]:
        coming: list[BackendKey] = []
        leaving = [key for name in gone for key in backend_keys(self._placed[name].pool)]
        for pool in changed:
            if self._seated(pool) is None:
                before = self._placed.get(pool.name)
                old = backend_keys(before.pool) if before else []
                new = dict.fromkeys(backend_keys(pool))
                coming += [key for key in new if key not in self._seats]
                leaving += [key for key in old if key not in new]
        return self._seats.plan(coming, leaving)

    def _seated(self, pool: PoolState) -> Mapping[str, Seat] | None:
        """Return the seats of a pool that has the same backends as before."""
        before = self._placed.get(pool.name)
        return before.seats if before and _same_backends(before.pool, pool) else None

    def _seat(self, pool: PoolState, moves: Moves[BackendKey]) -> Mapping[str, Seat]:
        if (seats := self._seated(pool)) is not None:
            return seats
        return {key[1]: moves.coming.get(key) or self._seats[key] for key in backend_keys(pool)}

    def _place(self, pool: PoolState, draft: Draft, memo: PathMemo) -> PlacedPool:
        members = ranked(pool)
        seats = self._seat(pool, draft.moves)
        table = self._place_table(table_key(pool, members), draft)
        before = self._placed.get(pool.name)
        if before and before.same_block(members, seats):
            return PlacedPool(pool, members, seats, table, before.block)
        block = self._arena.store(pack_pool(members, seats, memo))
        draft.made.append(block)
        return PlacedPool(pool, members, seats, table, block)

    def _place_table(self, key: TableKey, draft: Draft) -> int:
        if not needs_table(key):
            return 0
        if key not in self._tables:
            table = maglev.populate(key.names, key.weights, key.size)
            offset = self._arena.store(memoryview(table).cast("B"))
            self._tables[key], self._keys[offset] = offset, key
            draft.made.append(offset)
        return self._tables[key]

    def _rows(self, draft: Draft) -> Iterator[tuple[int, BackendRow]]:
        for key in draft.moves.leaving:
            yield self._seats[key].slot, BackendRow()
        made = set(draft.made)
        for place in draft.changed.values():
            if place.block in made:
                yield from place.rows()


def _same_backends(one: PoolState, other: PoolState) -> bool:
    pairs = zip(one.members, other.members, strict=False)
    return len(one.members) == len(other.members) and all(
        a is b or (a.name == b.name and a.address == b.address) for a, b in pairs
    )
