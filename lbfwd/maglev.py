"""Maglev tables: permutations from mmh3, population in C. Paper §3.4, docs/architecture.md."""

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache

import mmh3

from lbfwd import ring

NO_MEMBER = 0xFFFF  # an entry of a table in which no backend takes part
_REMEMBERED = 2048  # sets of names: weights change, names seldom do


def permutation(identity: str, size: int) -> tuple[int, int]:
    """Return (offset, skip) of a backend's permutation of a table of prime ``size``."""
    first, second = mmh3.hash64(identity, seed=0, signed=False)
    return first % size, second % (size - 1) + 1


def rank(identities: Sequence[str]) -> Sequence[int]:
    """Return indices into ``identities`` in ascending order of identity bytes."""
    return _rank(tuple(identities))


@lru_cache(maxsize=_REMEMBERED)
def _rank(identities: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(sorted(range(len(identities)), key=lambda i: identities[i].encode()))


def populate(identities: Sequence[str], weights: Sequence[int], size: int) -> "array[int]":
    """Return a table of ``size`` entries, each an index into ``identities`` or NO_MEMBER.

    The identities are already in ascending order of their bytes (see ``rank``): the order decides
    who takes the first turn. Weight 0 takes none.
    """
    offsets, skips = _permutations(tuple(identities), size)
    table = array("H", bytes(2 * size))
    ring.maglev_populate(table, offsets, skips, array("I", weights))
    return table


@lru_cache(maxsize=_REMEMBERED)
def _permutations(identities: tuple[str, ...], size: int) -> "tuple[array[int], array[int]]":
    """Return offsets and skips."""
    pairs = [permutation(identity, size) for identity in identities]
    return array("I", [offset for offset, _ in pairs]), array("I", [skip for _, skip in pairs])


def shares(identities: Sequence[str], weights: Sequence[int], size: int) -> tuple[int, ...]:
    """Return how many slots each backend wins, in the order given.

    A turn claims one slot, whichever: so turns are counted, and no table is populated.
    """
    largest, total = max(weights, default=0), sum(weights)
    if not largest:
        return (0,) * len(weights)

    def turns(rounds: int) -> list[int]:
        return [rounds * weight // largest for weight in weights]

    # So many rounds that their turns surely fit, and so many more that they surely do not.
    fewest, spare = size * largest // total, (len(weights) + 1) * largest // total + 2
    more = bisect_right(range(spare), size, key=lambda n: sum(turns(fewest + n))) - 1
    won, next_round = turns(fewest + more), turns(fewest + more + 1)
    left = size - sum(won)
    for place in [place for place in rank(identities) if next_round[place] > won[place]][:left]:
        won[place] += 1
    return tuple(won)
