"""What a reload changes: the differences between two configurations. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import BaseModel

from lbfwd.config import Config, ConfigError, Problem

ABSENT = "absent"
# Worker processes, their cores and their rings are made once, at the start.
RESTART_KEYS = ("workers.", "worker ")


@dataclass(frozen=True)
class Change:
    """One difference. ``old`` and ``new`` are texts for people; a secret shows as hidden."""

    key: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.key}: {self.old} -> {self.new}"


@dataclass(frozen=True)
class Plan:
    """What a reload does, and what of it only a restart can do."""

    changes: tuple[Change, ...]
    restart: tuple[Change, ...]

    def problems(self, file: str) -> tuple[Problem, ...]:
        """Return why this cannot be applied to a running node."""
        rule = "cannot change while lbfwd runs; restart it"
        return tuple(
            Problem(file, change.key, f"{change.new} (running: {change.old})", rule)
            for change in self.restart
        )


class NeedsRestart(ConfigError):  # noqa: N818 - the name says what is needed
    """A configuration is right, but a running node cannot take it up."""


def plan(old: Config, new: Config) -> Plan:
    """Compare two configurations; things with names are matched by name, so order says nothing."""
    changes = tuple(_differences("", old, new))
    restart = tuple(change for change in changes if change.key.startswith(RESTART_KEYS))
    return Plan(changes=changes, restart=restart)


def _differences(key: str, old: object, new: object) -> Iterator[Change]:
    if old == new:
        return
    if isinstance(old, BaseModel) and isinstance(new, BaseModel) and type(old) is type(new):
        for name, field in type(old).model_fields.items():
            path = f"{key}.{field.alias or name}" if key else field.alias or name
            yield from _differences(path, getattr(old, name), getattr(new, name))
    elif _named(old) or _named(new):
        yield from _differences_by_name(key, _by_name(old), _by_name(new))
    else:
        yield Change(key, _text(old), _text(new))


def _differences_by_name(
    key: str, old: dict[str, object], new: dict[str, object]
) -> Iterator[Change]:
    for name in sorted(old.keys() | new.keys()):
        path = f'{key} "{name}"'
        if name not in new:
            yield Change(path, "present", ABSENT)
        elif name not in old:
            yield Change(path, ABSENT, "present")
        else:
            yield from _differences(path, old[name], new[name])


def _named(value: object) -> bool:
    return isinstance(value, tuple) and bool(value) and hasattr(value[0], "name")


def _by_name(value: object) -> dict[str, object]:
    assert isinstance(value, tuple)  # noqa: S101 - both sides are the same field of one model
    return {item.name: item for item in value}


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return ABSENT if value is None else str(value)
