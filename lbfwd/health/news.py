"""What changed between standings, as events for the log. Pure; docs/events.md explains them."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from lbfwd.config import Pool
from lbfwd.health.standing import BackendKey, Condition, Standing, Standings, unlike

Level = Literal["info", "warning", "error"]
PoolState = Literal["served", "failed_open", "down"]

_EVENTS: dict[Condition, tuple[Level, str]] = {
    "up": ("info", "backend_up"),
    "starting": ("info", "backend_up"),
    "down": ("warning", "backend_down"),
    "failed_open": ("error", "backend_failed_open"),
    "drained": ("info", "backend_drained"),
    "disabled": ("info", "backend_disabled"),
    "joining": ("info", "backend_joining"),
    "paused": ("info", "backend_paused"),
    "gone": ("warning", "backend_gone"),
}


@dataclass(frozen=True)
class Event:
    """One line of the log."""

    level: Level
    name: str
    fields: Mapping[str, object]


def news(
    pools: Iterable[Pool],
    before: Standings,
    after: Standings,
) -> Iterator[Event]:
    """Yield what there is to say of these pools; at first only what is not as it should be."""
    first = not before
    for pool in pools:
        then, now = before.of(pool.name), after.of(pool.name)
        for key in unlike(now, then):
            if standing := now.get(key):
                yield from _of_backend(key, then.get(key), standing, first)
        yield from _of_pool(pool, _state(then), _state(now))


def _of_backend(
    key: BackendKey, before: Standing | None, now: Standing, first: bool
) -> Iterator[Event]:
    if (before and before.condition == now.condition) or now.condition not in _EVENTS:
        return
    level, name = _EVENTS[now.condition]
    old = _EVENTS.get(before.condition) if before else None
    if (first and name == "backend_up") or old == (level, name):
        return  # a slow start that has ended is no news
    fields: dict[str, object] = {"pool": key[0], "backend": key[1]}
    if now.reason:
        fields["reason"] = now.reason
    yield Event(level, name, fields)


def _state(standings: Mapping[BackendKey, Standing]) -> PoolState:
    conditions = {standing.condition for standing in standings.values()}
    if "failed_open" in conditions:
        return "failed_open"
    # Drained by an operator, or weighted 0: that is meant, and so no failure.
    return "served" if not conditions or conditions - {"down"} else "down"


def _of_pool(pool: Pool, before: PoolState, now: PoolState) -> Iterator[Event]:
    if before == now:
        return
    if now == "failed_open":
        rule = f"min_healthy = {pool.min_healthy}, all_down = {pool.all_down}"
        yield Event("error", "pool_failed_open", {"pool": pool.name, "reason": rule})
    elif now == "down":
        yield Event("error", "pool_down", {"pool": pool.name, "all_down": pool.all_down})
    else:
        yield Event("info", "pool_recovered", {"pool": pool.name})
