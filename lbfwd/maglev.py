"""Maglev tables: permutations from mmh3, population in C. Paper §3.4, docs/architecture.md."""

from array import array
from collections.abc import Sequence

import mmh3

from lbfwd import ring

NO_MEMBER = 0xFFFF  # an entry of a table in which no backend takes part


def permutation(identity: str, size: int) -> tuple[int, int]:
    """Return (offset, skip) of a backend's permutation of a table of prime ``size``."""
    first, second = mmh3.hash64(identity, seed=0, signed=False)
    return first % size, second % (size - 1) + 1


def rank(identities: Sequence[str]) -> list[int]:
    """Return indices into ``identities`` in ascending order of identity bytes."""
    return sorted(range(len(identities)), key=lambda i: identities[i].encode())


def populate(identities: Sequence[str], weights: Sequence[int], size: int) -> "array[int]":
    """Return a table of ``size`` entries, each an index into ``identities`` or NO_MEMBER.

    The identities are already in ascending order of their bytes (see ``rank``): the order decides
    who takes the first turn. Weight 0 takes none.
    """
    offsets, skips = array("I"), array("I")
    for identity in identities:
        offset, skip = permutation(identity, size)
        offsets.append(offset)
        skips.append(skip)
    table = array("H", bytes(2 * size))
    ring.maglev_populate(table, offsets, skips, array("I", weights))
    return table


def shares(identities: Sequence[str], weights: Sequence[int], size: int) -> tuple[int, ...]:
    """Return how many slots each backend wins, in the order given."""
    order = rank(identities)
    table = populate([identities[i] for i in order], [weights[i] for i in order], size)
    won = [0] * len(identities)
    for member in table:
        if member != NO_MEMBER:
            won[order[member]] += 1
    return tuple(won)
