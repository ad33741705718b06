"""Numbered places for things that come and go: services and backends in counters and arrays.

A thing keeps its slot as long as it is configured. A slot that is used again gets another
incarnation, so that nothing is inherited, and its counters start from where they stand.
"""

import heapq
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Seat:
    """A slot and the number of its tenants so far, this one included."""

    slot: int
    incarnation: int


class Slots(Generic[Key]):
    """Assigns slots; ``plan`` looks, ``commit`` does."""

    def __init__(self, what: str, most: int, read: Callable[[int], tuple[int, int]]) -> None:
        """``read`` returns a slot's (packets, bytes) as they stand in the counters."""
        self._what = what
        self._most = most
        self._read = read
        self._seats: dict[Key, Seat] = {}
        self._since: dict[Key, tuple[int, int]] = {}
        self._incarnations: list[int] = []  # by slot
        self._free: list[int] = []  # heap: low slots first keep the arrays short

    def plan(self, keys: Iterable[Key]) -> dict[Key, Seat]:
        """Return a seat for every key, and change nothing. ValueError: there are too many."""
        wanted = list(keys)
        free = list(self._free)
        fresh = len(self._incarnations)
        seats: dict[Key, Seat] = {}
        for key in wanted:
            if key in self._seats:
                seats[key] = self._seats[key]
                continue
            if free:
                slot = heapq.heappop(free)
                seats[key] = Seat(slot, self._incarnations[slot] + 1)
            else:
                seats[key] = Seat(fresh, 1)
                fresh += 1
        if fresh > self._most:
            raise ValueError(f"{fresh} {self._what}: at most {self._most}")
        return seats

    def commit(self, seats: dict[Key, Seat]) -> None:
        """Make a plan true; whoever is not in it loses its slot."""
        for key in [key for key in self._seats if key not in seats]:
            heapq.heappush(self._free, self._seats.pop(key).slot)
            del self._since[key]
        for key, seat in seats.items():
            if key in self._seats:
                continue
            if seat.slot < len(self._incarnations):
                self._free.remove(seat.slot)
                heapq.heapify(self._free)
                self._incarnations[seat.slot] = seat.incarnation
            else:
                self._incarnations.append(seat.incarnation)
            self._seats[key] = seat
            self._since[key] = self._read(seat.slot)

    def count(self, key: Key) -> tuple[int, int]:
        """Return (packets, bytes) of a key since it got its slot."""
        packets, size = self._read(self._seats[key].slot)
        packets_before, size_before = self._since[key]
        return packets - packets_before, size - size_before
