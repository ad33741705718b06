"""What a pool makes of its backends: verdicts, next hops and operators' words, as standings. Pure.

A pool is judged as a whole, for how many of its backends pass decides what becomes of the others.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, Protocol, get_args

from lbfwd.config import Backend, Config, Pool
from lbfwd.config.health import least_healthy
from lbfwd.config.model import RegisteredBackend
from lbfwd.health.standing import BackendKey, Condition, Said, Standing, of_pool
from lbfwd.health.verdict import Verdict

STEPS = 5  # of a slow start: a fifth of the weight at once, a fifth more at each quarter


_WHY: dict[str, str] = {
    "joining": "no token has come back through the tunnel yet",
    "gone": "it has left, or its lease is lost",
}
_KEEP_FLOWS = ("drained", "paused", "gone")


class Operation(Protocol):
    """What somebody has said of a backend: an operator, or it itself."""

    @property
    def mode(self) -> Said:
        """``drained``, ``paused``, ``gone``: no new flows; ``disabled``, ``joining``: none."""

    @property
    def who(self) -> str:
        """Who has said it."""

    @property
    def when(self) -> float:
        """Seconds since the epoch."""


@dataclass(frozen=True)
class _Finding:
    """What is known of one backend by itself. ``failed``: since when it fails."""

    backend: Backend
    state: Literal["passing", "held", "failing", "unreachable", "checking"]
    reason: str = ""
    failed: float = 0.0


def standings(  # noqa: PLR0913, PLR0917 - all that a decision depends on
    config: Config,
    verdicts: Mapping[BackendKey, Verdict],
    unreachable: Mapping[BackendKey, str],
    operations: Mapping[BackendKey, Operation],
    before: Mapping[BackendKey, Standing],
    now: float,
) -> dict[BackendKey, Standing]:
    """Judge all pools. ``before``: the standings so far, empty at first; ``now``: since the epoch.

    ``unreachable``: why a backend cannot be sent to, where it cannot.
    """
    known = Known(verdicts, unreachable, operations, before)
    pools = (judge(pool, known, now) for pool in config.pools)
    return {key: standing for judged in pools for key, standing in judged.items()}


@dataclass(frozen=True)
class Known:
    """What ``standings`` knows."""

    verdicts: Mapping[BackendKey, Verdict]
    unreachable: Mapping[BackendKey, str]
    operations: Mapping[BackendKey, Operation]
    before: Mapping[BackendKey, Standing]

    @cached_property
    def disputed(self) -> frozenset[str]:
        """The pools of which anything bad is known, or said."""
        return frozenset(pool for pool, _ in (*self.unreachable, *self.operations))


def judge(pool: Pool, known: Known, now: float) -> Mapping[BackendKey, Standing]:
    """Judge one pool; returns its backends in their order."""
    asks = pool.health.type != "none" or pool.registration
    if not asks and not pool.slow_start_s and pool.name not in known.disputed:
        return _undisputed(pool, of_pool(known.before, pool.name), now)
    return dict(_judged(pool, known, now))


def _undisputed(
    pool: Pool, before: Mapping[BackendKey, Standing], now: float
) -> Mapping[BackendKey, Standing]:
    """Judge a pool of which nobody says anything: all are up, and there may be very many."""
    name = pool.name
    keys = [(name, backend.name) for backend in pool.backends]
    if keys != list(before):
        return {k: _up(b, before.get(k), now) for k, b in zip(keys, pool.backends, strict=True)}
    rows = zip(before.items(), pool.backends, strict=True)  # then nothing need be looked up
    new = {k: up for (k, old), b in rows if (up := _up(b, old, now)) is not old}
    return {**before, **new} if new else before


def _up(backend: Backend, old: Standing | None, now: float) -> Standing:
    """Return its standing: the same object where it is in service already, as it is to be."""
    if old is None or old.condition != "up":
        return Standing("up", backend.weight, True, "", now)
    if old.weight != backend.weight or not old.serves or old.reason:
        return Standing("up", backend.weight, True, "", old.since)
    return old


def _judged(pool: Pool, known: Known, now: float) -> Iterator[tuple[BackendKey, Standing]]:
    findings = {backend.name: _find(pool, backend, known, now) for backend in pool.backends}
    conditions = _conditions(
        pool,
        [
            finding
            for name, finding in findings.items()
            if finding.backend.weight and (pool.name, name) not in known.operations
        ],
    )
    for name, finding in findings.items():
        key = (pool.name, name)
        operation = known.operations.get(key)
        condition = conditions.get(name) or _alone(finding)
        standing = (
            _operated(finding, operation)
            if operation
            else _standing(pool, finding, condition, known, now)
        )
        yield key, _dated(standing, known.before.get(key), now)


def scale(pool: Pool) -> int:
    """Return what weights in force are multiplied by, so that they can be parts of a weight."""
    return STEPS if pool.slow_start_s else 1


def restless(
    of_pool: Mapping[BackendKey, Standing], verdicts: Mapping[BackendKey, Verdict]
) -> bool:
    """Tell whether a standing is to be looked at again and again.

    Time alone changes a slow start and ends a hold-down; a backend that joins is waited for, and
    whoever waits wants to know what its last probe says.
    """
    conditions = {standing.condition for standing in of_pool.values()}
    if not conditions.isdisjoint(("starting", "joining")):
        return True
    return "down" in conditions and any(
        standing.condition == "down" and (v := verdicts.get(key)) is not None and v.passing
        for key, standing in of_pool.items()
    )


def _find(pool: Pool, backend: Backend, known: Known, now: float) -> _Finding:
    key = (pool.name, backend.name)
    verdict, before = known.verdicts.get(key), known.before.get(key)
    if reason := known.unreachable.get(key):
        return _Finding(backend, "unreachable", reason)
    if pool.health.type == "none" and not isinstance(backend, RegisteredBackend):
        return _Finding(backend, "passing")
    if verdict is None:
        # Checks that are new to a backend in service take nothing away before they have spoken.
        serves = before is not None and before.serves
        return _Finding(backend, "passing") if serves else _Finding(backend, "checking")
    if not verdict.passing:
        return _Finding(backend, "failing", verdict.reason, verdict.since)
    hold_s = pool.health.hold_down_s
    if before and before.condition == "down" and now < verdict.failed + hold_s:
        reason = f"passes, but is held down for {hold_s} s after its last failure"
        return _Finding(backend, "held", reason, verdict.failed)
    return _Finding(backend, "passing")


def _conditions(pool: Pool, findings: Sequence[_Finding]) -> dict[str, Condition]:
    """Decide who is in service, of those that operators and weights leave to us."""
    passing = [finding for finding in findings if finding.state == "passing"]
    held = [finding for finding in findings if finding.state == "held"]
    failing = [finding for finding in findings if finding.state == "failing"]
    conditions = {finding.backend.name: _alone(finding) for finding in findings}
    if not passing and not held:
        if pool.all_down == "fail_open":
            conditions |= {finding.backend.name: "failed_open" for finding in failing}
        return conditions
    least = max(1, least_healthy(pool.min_healthy, len(findings)))
    # Those that failed last are kept: what has failed for long has surely failed.
    spare = [*held, *sorted(failing, key=lambda finding: finding.failed, reverse=True)]
    for finding in spare[: max(0, least - len(passing))]:
        conditions[finding.backend.name] = "up" if finding.state == "held" else "failed_open"
    return conditions


def _alone(finding: _Finding) -> Condition:
    if finding.state == "passing":
        return "up"
    return "checking" if finding.state == "checking" else "down"


def _operated(finding: _Finding, operation: Operation) -> Standing:
    why = _WHY.get(operation.mode) or f"by {operation.who}"
    reason = "; ".join(part for part in (why, finding.reason) if part)
    serves = operation.mode in _KEEP_FLOWS and _alone(finding) == "up"
    return Standing(operation.mode, 0, serves, reason, operation.when)


def _standing(
    pool: Pool, finding: _Finding, condition: Condition, known: Known, now: float
) -> Standing:
    if condition in ("down", "checking"):
        return Standing(condition, 0, False, finding.reason, now)
    full = finding.backend.weight * scale(pool)
    step = STEPS
    if condition == "up" and pool.slow_start_s and full:
        step = _step(pool, known.before.get((pool.name, finding.backend.name)), known, now)
    if step < STEPS:
        reason = f"slow start of {pool.slow_start_s} s"
        return Standing("starting", full * step // STEPS, True, reason, now)
    # One that passes may have been held down: once it is in service that is over.
    reason = finding.reason if condition == "failed_open" else ""
    return Standing(condition, full, True, reason, now)


def _step(pool: Pool, before: Standing | None, known: Known, now: float) -> int:
    """Return how far a slow start has come: 1 to STEPS."""
    if before is not None and before.condition == "starting":
        return min(STEPS, 1 + int((now - before.since) * (STEPS - 1) / pool.slow_start_s))
    # All that is there when lbfwd starts has its weight at once: nobody else could take the load.
    new = bool(known.before) and (before is None or not before.weight)
    return 1 if new else STEPS


def _dated(standing: Standing, before: Standing | None, now: float) -> Standing:
    if standing.condition in get_args(Said):
        return standing
    same = before is not None and before.condition == standing.condition
    return replace(standing, since=before.since if before and same else now)
