"""What the node makes of a backend at present: its weight in force, and why. Plain values."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

BackendKey = tuple[str, str]
"""Name of the pool, name of the backend."""

Said = Literal["drained", "disabled", "joining", "paused", "gone"]
"""What operators say of a backend, or what follows from what it says of itself."""
Condition = Literal["up", "down", "checking", "failed_open", "starting"] | Said


@dataclass(frozen=True)
class Standing:
    """One backend's.

    ``condition``: ``checking`` before the first verdict; ``failed_open``: its checks fail, but the
    pool may not lose it; ``starting``: a slow start raises its weight; ``drained`` and
    ``disabled``: an operator said so; ``joining``, ``paused``, ``gone``: its registration
    (docs/registration.md). ``weight``: in the pool's Maglev table; 0: no new flows.
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

    def of(self, pool: str) -> Mapping[BackendKey, Standing]:
        """Return those of a pool, as they were given; empty: there is no such pool."""
        return self._by_pool.get(pool, {})

    def with_pools(self, by_pool: Mapping[str, Mapping[BackendKey, Standing]]) -> "Standings":
        """Return these, but for some pools others."""
        return Standings({**self._by_pool, **by_pool})

    def unlike(self, other: "Standings") -> list[BackendKey]:
        """Return the backends that were judged anew since, or are in one of them only."""
        pools = {
            pool
            for mine, theirs in ((self._by_pool, other._by_pool), (other._by_pool, self._by_pool))
            for pool, found in mine.items()
            if theirs.get(pool) is not found
        }
        return [key for pool in pools for key in unlike(self.of(pool), other.of(pool))]


def unlike(
    one: Mapping[BackendKey, Standing], other: Mapping[BackendKey, Standing]
) -> list[BackendKey]:
    """Return the backends that were judged anew or are in one only, in the order of ``one``."""
    if list(one) == list(other):  # then nothing need be looked up
        pairs = zip(one.items(), other.values(), strict=True)
        return [key for (key, standing), was in pairs if standing is not was]
    return [key for key in {**one, **other} if one.get(key) is not other.get(key)]


def of_pool(standings: Mapping[BackendKey, Standing], pool: str) -> Mapping[BackendKey, Standing]:
    """Return where to look a pool's standings up; in many of them a plain dict is much faster."""
    return standings.of(pool) if isinstance(standings, Standings) else standings
