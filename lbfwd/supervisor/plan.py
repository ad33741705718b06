"""What a reload changes: the differences between two configurations. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest

from pydantic import BaseModel

from lbfwd.config import Config, ConfigError, Problem

ABSENT = "absent"
# Sizes of files and rooms that every process has mapped, and what is opened once, at the start.
NODE_KEYS = ("workers.flows", "admin.", "etcd.", "registration.")
# What makes processes or rings anew, without a packet lost (handover.py, workers.Crew.renew).
WORKER_KEYS = ("workers.", "worker ")
FANOUT = "workers.fanout"  # a program, that is replaced
CPUS = "workers.cpus"


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
    """What a reload does: ``restart`` of it only a restart of lbfwd can do.

    ``workers``: for these it replaces worker processes or rings, one after another.
    """

    changes: tuple[Change, ...]
    restart: tuple[Change, ...] = ()
    workers: tuple[Change, ...] = ()

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
    fixed: tuple[str, ...] = NODE_KEYS
    if len(old.workers.cpus) != len(new.workers.cpus):
        fixed = (*fixed, CPUS)
    restart = tuple(change for change in changes if change.key.startswith(fixed))
    workers = tuple(
        change
        for change in changes
        if change.key.startswith(WORKER_KEYS) and change.key != FANOUT and change not in restart
    )
    return Plan(changes, restart, workers)


def _differences(key: str, old: object, new: object) -> Iterator[Change]:
    if old is new or old == new:
        return
    if isinstance(old, BaseModel) and isinstance(new, BaseModel) and type(old) is type(new):
        for name, field in type(old).model_fields.items():
            path = f"{key}.{field.alias or name}" if key else field.alias or name
            yield from _differences(path, getattr(old, name), getattr(new, name))
    elif _named(old) or _named(new):
        yield from _differences_by_name(key, *_by_name(old, new))
    else:
        yield Change(key, _text(old), _text(new))


def _differences_by_name(
    key: str, old: dict[str, object], new: dict[str, object]
) -> Iterator[Change]:
    unlike = [name for name in old.keys() | new.keys() if old.get(name) is not new.get(name)]
    for name in sorted(unlike):
        path = f'{key} "{name}"'
        if name not in new:
            yield Change(path, "present", ABSENT)
        elif name not in old:
            yield Change(path, ABSENT, "present")
        else:
            yield from _differences(path, old[name], new[name])


def _named(value: object) -> bool:
    return isinstance(value, tuple) and bool(value) and hasattr(value[0], "name")


def _by_name(old: object, new: object) -> tuple[dict[str, object], dict[str, object]]:
    """Return the items of both, but for those that are the same object at the same place."""
    assert isinstance(old, tuple)  # noqa: S101 - both sides are the same field of one model
    assert isinstance(new, tuple)  # noqa: S101
    pairs = [(a, b) for a, b in zip_longest(old, new) if a is not b]
    before = {a.name: a for a, _ in pairs if a is not None}
    return before, {b.name: b for _, b in pairs if b is not None}


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return ABSENT if value is None else str(value)
