"""Numbered places for things that come and go: services and backends in counters and arrays.

A thing keeps its slot as long as it is configured. A slot that is used again gets another
incarnation, so that nothing is inherited, and its counters start from where they stand.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

Tally = tuple[int, int, int]
"""Packets, bytes, new flows."""
Columns = tuple[Sequence[int], Sequence[int], Sequence[int]]
"""The same by slot."""


@dataclass(frozen=True)
class Seat:
    """A slot and the number of its tenants so far, this one included."""

    slot: int
    incarnation: int


@dataclass(frozen=True)
class Moves(Generic[Key]):
    """Who gets a seat, and who loses it."""

    coming: Mapping[Key, Seat]
    leaving: Sequence[Key]

    @property
    def any(self) -> bool:
        """Whether anybody moves."""
        return bool(self.coming or self.leaving)


@dataclass(frozen=True)
class Tenants(Generic[Key]):
    """Who has which seat, and what was counted in the slot when it came."""

    seats: Mapping[Key, Seat]
    since: Mapping[Key, Tally]

    @property
    def slots(self) -> int:
        """How long an array by slot has to be."""
        return max((seat.slot for seat in self.seats.values()), default=-1) + 1

    def counts(self, now: Columns) -> Iterator[tuple[Key, int, int, int]]:
        """Give packets, bytes and new flows of each since it came; those of ``now`` are given."""
        packets_now, size_now, new_now = now
        # Keys come and go in both together, so their order is the same.
        both = zip(self.seats.items(), self.since.values(), strict=True)
        for (key, seat), (packets, size, new) in both:
            slot = seat.slot
            yield key, packets_now[slot] - packets, size_now[slot] - size, new_now[slot] - new


class Slots(Generic[Key]):
    """Assigns slots; ``plan`` looks, ``commit`` does, both in the time that the changes take."""

    def __init__(self, what: str, most: int, read: Callable[[int], Tally]) -> None:
        """``read`` returns what was counted in a slot."""
        self._what = what
        self._most = most
        self._read = read
        self._seats: dict[Key, Seat] = {}
        self._since: dict[Key, Tally] = {}
        self._incarnations: list[int] = []  # by slot
        self._free: list[int] = []  # ascending: low slots first keep the arrays short

    @property
    def seats(self) -> Mapping[Key, Seat]:
        """Who has which seat."""
        return self._seats

    def __contains__(self, key: Key) -> bool:
        """Whether a key has a seat."""
        return key in self._seats

    def __getitem__(self, key: Key) -> Seat:
        """Return a key's seat. Raises KeyError."""
        return self._seats[key]

    def rows(self, moves: Moves[Key]) -> int:
        """Return how long an array by slot is after these moves."""
        return len(self._incarnations) + max(0, len(moves.coming) - len(self._free))

    def plan(self, coming: Iterable[Key], leaving: Iterable[Key]) -> Moves[Key]:
        """Return a seat for each that comes, and change nothing. ValueError: there are too many.

        A leaver's seat is free only afterwards.
        """
        keys = list(coming)
        fresh = range(len(self._incarnations), len(self._incarnations) + len(keys))
        slots = [*self._free[: len(keys)], *fresh][: len(keys)]
        if slots and slots[-1] >= self._most:
            raise ValueError(f"{slots[-1] + 1} {self._what}: at most {self._most}")
        seats = {
            key: Seat(slot, self._tenants(slot) + 1) for key, slot in zip(keys, slots, strict=True)
        }
        return Moves(seats, list(leaving))

    def commit(self, moves: Moves[Key]) -> None:
        """Make a plan true."""
        del self._free[: len(moves.coming)]
        for key in moves.leaving:
            self._free.append(self._seats.pop(key).slot)
            del self._since[key]
        self._free.sort()
        for key, seat in moves.coming.items():
            # A slot that nobody had yet was not counted in: reading all of them takes long.
            self._since[key] = self._read(seat.slot) if self._tenants(seat.slot) else (0, 0, 0)
            self._incarnations[seat.slot : seat.slot + 1] = [seat.incarnation]
            self._seats[key] = seat

    def _tenants(self, slot: int) -> int:
        return self._incarnations[slot] if slot < len(self._incarnations) else 0

    def tenants(self) -> Tenants[Key]:
        """Return who has which seat now: a copy that another thread can count with."""
        return Tenants(dict(self._seats), dict(self._since))
