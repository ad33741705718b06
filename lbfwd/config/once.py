"""What a file says again is the same object again, and is not checked again.

After most changes nearly all of a hundred thousand backends are said as before. Whoever compares
two configurations then sees at once what is the same.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from pydantic import ValidationInfo

Said = tuple[object, object, object]
"""What the file says of a backend: address, name and weight; None: nothing."""

_TEXT, _NUMBER = (str, type(None)), (int, type(None))


class _Named(Protocol):
    @property
    def name(self) -> str: ...


Item = TypeVar("Item")
Named = TypeVar("Named", bound=_Named)


@dataclass(frozen=True)
class Parts:
    """The parts of a configuration: backends by what the file says of them, pools by name."""

    backends: dict[Said, Any] = field(default_factory=dict)
    pools: dict[str, Any] = field(default_factory=dict)


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


def backends_once(
    value: object, validate: Callable[[object], tuple[Item, ...]], info: ValidationInfo[Any]
) -> tuple[Item, ...]:
    """Validate a pool's backends (pydantic's wrap validator): those that are not known."""
    if not isinstance(info.context, Reading) or not isinstance(value, list):
        return validate(value)
    before, now = info.context.before.backends, info.context.now.backends
    said = list(map(_said, value))
    known = [before.get(key) or now.get(key) if key else None for key in said]
    found = validate([old or item for old, item in zip(known, value, strict=True)])
    now.update((key, item) for key, item in zip(said, found, strict=True) if key)
    return found


def _said(table: object) -> Said | None:
    """Return what a backend's table says; None: no other is known to be the same (true == 1)."""
    if not isinstance(table, dict):
        return None
    said = address, name, weight = table.get("address"), table.get("name"), table.get("weight")
    plain = type(address) is str and type(name) in _TEXT and type(weight) in _NUMBER
    return said if plain and len(table) == len(said) - said.count(None) else None


def pools_once(pools: tuple[Named, ...], info: ValidationInfo[Any]) -> tuple[Named, ...]:
    """Put in what is equal from before (pydantic's after validator)."""
    if not isinstance(info.context, Reading):
        return pools
    before: Mapping[str, Named] = info.context.before.pools
    same = tuple(old if (old := before.get(p.name)) == p and old else p for p in pools)
    info.context.now.pools.update((pool.name, pool) for pool in same)
    return same
