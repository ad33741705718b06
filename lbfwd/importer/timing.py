"""How often and how long a checker asks → ``interval_ms``, ``timeout_ms``, ``rise``, ``fall``."""

from lbfwd.importer.note import Notes
from lbfwd.importer.scope import Scope

TIMING_KEYS = ("delay_loop", "connect_timeout", "retry", "nb_get_retry", "delay_before_retry")
_RETRIES = {"DNS_CHECK": 3, "MISC_CHECK": 0}
_SLOW_RETRIES = ("HTTP_GET", "SSL_GET")
_LOOP_MS = 60_000
_TIMEOUT_MS = 5000


def timing(scope: Scope, notes: Notes) -> dict[str, object]:
    """Return the keys of ``[pool.health]`` for the checker of this scope.

    keepalived asks ``retry`` times again before it takes a server out, and takes it back after one
    good answer.
    """
    retry = "nb_get_retry" if scope.find("nb_get_retry") else "retry"
    return {
        "interval_ms": scope.milliseconds("delay_loop", _LOOP_MS, (100, 3_600_000), notes),
        "timeout_ms": scope.milliseconds("connect_timeout", _TIMEOUT_MS, (10, 60_000), notes),
        "rise": 1,
        "fall": 1 + scope.whole(retry, _RETRIES.get(scope.block.name, 1), 0, 99, notes),
    }


def slower(scope: Scope, keys: dict[str, object]) -> str:
    """Say by how much lbfwd notices a dead server later; empty: it does not.

    keepalived asks again after ``delay_before_retry``, lbfwd after ``interval_ms``.
    """
    interval, fall = (int(str(keys[key])) for key in ("interval_ms", "fall"))
    default = {"DNS_CHECK": interval}.get(scope.block.name, 1000)
    default = 3000 if scope.block.name in _SLOW_RETRIES else default
    again = scope.milliseconds("delay_before_retry", default, (0, 3_600_000), Notes())
    ours, theirs = interval * fall, interval + again * (fall - 1)
    if ours <= theirs:
        return ""
    return (
        f"a dead server is out after {ours / 1000:g} s (interval_ms * fall), in keepalived after"
        f" {theirs / 1000:g} s: a shorter interval_ms makes up for it"
    )
