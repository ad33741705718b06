"""What a file says again is the same object again, and is not checked again.

After most changes nearly all of a hundred thousand backends are said as before. Whoever compares
two configurations then sees at once what is the same.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from pydantic import ValidationInfo

Said = tuple[object, object, object]
"""What the file says of a backend: address, name and weight; None: nothing."""

_TEXT, _NUMBER = (str, type(None)), (int, type(None))


class _Backend(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def address(self) -> object: ...


class _Pool(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def backends(self) -> Sequence[_Backend]: ...


Item = TypeVar("Item")
Pool = TypeVar("Pool", bound=_Pool)


@dataclass(frozen=True)
class Parts:
    """The parts of a configuration: backends by what the file says of them, pools by name."""

    backends: dict[Said | None, Any] = field(default_factory=dict)
    pools: dict[str, Any] = field(default_factory=dict)
    settled: set[int] = field(default_factory=set)
    """Places of the pools that have the same backends as before, but for weights."""
    vips: set[object] = field(default_factory=set)
    """Of all services."""


class Memo:
    """Remembers the configuration that was read last."""

    def __init__(self, last: Parts = Parts()) -> None:
        """Remember nothing yet, or what another one does."""
        self._last = last

    def apart(self) -> "Memo":
        """Return one that knows the same, for configurations that may never be in force."""
        return Memo(self._last)

    def reading(self) -> "Reading":
        """Begin to read another one: validation's context."""
        return Reading(self._last)

    def keep(self, reading: "Reading") -> None:
        """Remember this one: it was right."""
        self._last = reading.now


@dataclass(frozen=True)
class Reading:
    """A configuration that is being read; ``before``: the one to take parts from."""

    before: Parts
    now: Parts = field(default_factory=Parts)

    def settled(self, vips: Collection[object]) -> Collection[int]:
        """Return the places of pools whose names and addresses need not be checked: they were.

        ``vips``: those of this configuration, which no backend may have.
        """
        self.now.vips.update(vips)
        return self.now.settled if self.now.vips <= self.before.vips else ()


def backends_once(
    value: object, validate: Callable[[object], tuple[Item, ...]], info: ValidationInfo[Any]
) -> tuple[Item, ...]:
    """Validate a pool's backends (pydantic's wrap validator): those that are not known."""
    if not isinstance(info.context, Reading) or not isinstance(value, list):
        return validate(value)
    before, now = info.context.before.backends, info.context.now.backends
    said = list(map(_said, value))
    rows = zip(map(before.get, said), said, value, strict=True)
    found = validate([old or now.get(key) or item for old, key, item in rows])
    now.update(zip(said, found, strict=True))
    now.pop(None, None)  # whatever it was, another need not be the same
    return found


def _said(table: object) -> Said | None:
    """Return what a backend's table says; None: no other is known to be the same (true == 1)."""
    if not isinstance(table, dict):
        return None
    said = address, name, weight = table.get("address"), table.get("name"), table.get("weight")
    plain = type(address) is str and type(name) in _TEXT and type(weight) in _NUMBER
    return said if plain and len(table) == len(said) - said.count(None) else None


def pools_once(pools: tuple[Pool, ...], info: ValidationInfo[Any]) -> tuple[Pool, ...]:
    """Put in what is equal from before (pydantic's after validator)."""
    if not isinstance(info.context, Reading):
        return pools
    before: Mapping[str, Pool] = info.context.before.pools
    now = info.context.now
    pairs = [(before.get(pool.name), pool) for pool in pools]
    now.settled.update(n for n, (old, pool) in enumerate(pairs) if old and _same_places(old, pool))
    same = tuple(old if old == pool and old else pool for old, pool in pairs)
    now.pools.update((pool.name, pool) for pool in same)
    return same


def _same_places(one: _Pool, other: _Pool) -> bool:
    """Tell whether two pools have the same backends, weights aside, in the same order."""
    pairs = zip(one.backends, other.backends, strict=False)
    return len(one.backends) == len(other.backends) and all(
        a.name == b.name and a.address == b.address for a, b in pairs if a is not b
    )
