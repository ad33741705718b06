"""What the node makes of a backend at present: its weight in force, and why. Plain values."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

BackendKey = tuple[str, str]
"""Name of the pool, name of the backend."""

Condition = Literal["up", "down", "checking", "failed_open", "starting", "drained", "disabled"]


@dataclass(frozen=True)
class Standing:
    """One backend's.

    ``condition``: ``checking`` before the first verdict; ``failed_open``: its checks fail, but the
    pool may not lose it; ``starting``: a slow start raises its weight; ``drained`` and
    ``disabled``: an operator said so. ``weight``: in the pool's Maglev table; 0: no new flows.
    ``serves``: live flows may stay with it. ``since``: seconds since the epoch.
    """

    condition: Condition
    weight: int
    serves: bool
    reason: str
    since: float


class Standings(Mapping[BackendKey, Standing]):
    """All backends' standings, kept by pool: which pools were judged anew is seen at once.

    Never changed once made.
    """

    def __init__(self, by_pool: Mapping[str, Mapping[BackendKey, Standing]]) -> None:
        """Take each pool's standings; the keys are those of the pool's backends."""
        self._by_pool = by_pool

    def __getitem__(self, key: BackendKey) -> Standing:
        """Return one. Raises KeyError."""
        return self._by_pool[key[0]][key]

    def __iter__(self) -> Iterator[BackendKey]:
        """Go through all backends, pool by pool."""
        return (key for standings in self._by_pool.values() for key in standings)

    def __len__(self) -> int:
        """Count the backends."""
        return sum(map(len, self._by_pool.values()))

    def with_pools(self, by_pool: Mapping[str, Mapping[BackendKey, Standing]]) -> "Standings":
        """Return these, but for some pools others."""
        return Standings({**self._by_pool, **by_pool})

    def unlike(self, other: "Standings") -> list[BackendKey]:
        """Return the backends of pools that were judged anew since, or are in one of them only."""
        pools = self._by_pool.keys() | other._by_pool.keys()
        mine, theirs = self._by_pool.get, other._by_pool.get
        return [
            key
            for pool in pools
            if mine(pool) is not theirs(pool)
            for key in (mine(pool, {}).keys() | theirs(pool, {}).keys())
        ]
