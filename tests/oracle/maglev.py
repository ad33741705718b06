"""Maglev tables, slow and obvious. Eisenbud et al., NSDI 2016, section 3.4."""

from collections.abc import Iterator, Mapping

import mmh3


def permutation(identity: str, size: int) -> Iterator[int]:
    """Every slot of the table, in the order in which the backend prefers them."""
    first, second = mmh3.hash64(identity.encode(), 0, signed=False)
    offset, skip = first % size, second % (size - 1) + 1
    return ((offset + turn * skip) % size for turn in range(size))


def table(weights: Mapping[str, int], size: int) -> list[str | None]:
    """Who gets each slot. ``weights``: by identity; the order of the mapping means nothing."""
    slots: list[str | None] = [None] * size
    heaviest = max(weights.values(), default=0)
    if heaviest == 0:
        return slots
    wishes = {name: permutation(name, size) for name, weight in weights.items() if weight}
    by_identity = sorted(wishes, key=str.encode)
    free, turn = size, 0
    while True:
        turn += 1
        for name in by_identity:
            now, before = turn * weights[name] // heaviest, (turn - 1) * weights[name] // heaviest
            if now == before:
                continue
            slots[next(slot for slot in wishes[name] if slots[slot] is None)] = name
            free -= 1
            if free == 0:
                return slots
