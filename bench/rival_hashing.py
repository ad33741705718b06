"""Lookup tables by the two methods that the Maglev paper (NSDI 2016, section 5.3) compares with.

Both fill a table of M entries for N backends, numbered from 0, from a hash of (seed, backend, …).
When a backend goes, only its own entries change.
"""

from typing import cast

import numpy as np
from numpy.typing import NDArray

CHUNK = 1 << 15  # hashes at a time: they stay in the cache

Table = NDArray[np.int32]  # M entries: the backend of each
Hashes = NDArray[np.uint64]


def mix(values: Hashes) -> Hashes:
    """Hash each value: the finalizer of SplitMix64 (Steele, Lea, Flood 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def seeds(backends: NDArray[np.int64], seed: int) -> Hashes:
    """Return a random 64-bit number for each backend."""
    return mix(mix(backends.astype(np.uint64) + np.uint64(1)) + np.uint64(seed))


def karger(backends: NDArray[np.int64], size: int, views: int, seed: int) -> Table:
    """Consistent hashing (Karger et al., STOC 1997), as a lookup table.

    The ring has ``size`` places. Each backend has ``views`` points on it. A place belongs to the
    first point there, the backends' first points coming before their second ones; a place without
    points belongs to the next place's backend, clockwise.
    """
    numbers = np.arange(views, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    points = mix(numbers[:, None] + seeds(backends, seed)[None, :]) % np.uint64(size)
    places, first = np.unique(points.reshape(-1), return_index=True)
    owners = backends[first % len(backends)]
    following = np.searchsorted(places, np.arange(size, dtype=np.uint64)) % len(places)
    return cast(Table, owners[following].astype(np.int32))


def rendezvous(backends: NDArray[np.int64], size: int, seed: int) -> Table:
    """Rendezvous hashing (Thaler, Ravishankar 1998): an entry goes to the highest hash."""
    table = np.empty(size, dtype=np.int32)
    step = max(CHUNK // len(backends), 1)
    own = seeds(backends, seed)
    for begin in range(0, size, step):
        entries = np.arange(begin, min(begin + step, size), dtype=np.uint64)
        hashes = mix(mix(entries + np.uint64(1))[:, None] ^ own[None, :])
        table[begin : begin + step] = backends[hashes.argmax(axis=1)]
    return table


def imbalance(table: Table, backends: int) -> tuple[float, float]:
    """Return the least and the greatest share of entries, relative to the average: 0.1 is +10 %."""
    shares = np.bincount(table, minlength=backends) * (backends / len(table)) - 1
    return float(shares.min()), float(shares.max())
