"""Health checks that are allowed and yet probably not meant."""

from collections import defaultdict
from collections.abc import Iterator

from lbfwd.config.health import least_healthy
from lbfwd.config.model import Config, Pool
from lbfwd.config.problem import Problem, entry, show
from lbfwd.config.values import IPAddress

MOST_PROBES_S = 2000  # measured: bench/probes.py


def health_warnings(config: Config, file: str) -> Iterator[Problem]:
    """Yield what an operator should look at again."""
    checked = [pool for pool in config.pools if pool.health.type != "none"]
    for pool in checked:
        yield from _slow_answers(pool, file)
        yield from _everybody_stays(pool, file)
    vips = defaultdict[str, set[IPAddress]](set)
    for service in config.services:
        vips[service.pool].add(service.vip)
    rate = sum(_probes_s(pool, len(vips[pool.name])) for pool in checked)
    if rate > MOST_PROBES_S:
        rule = (
            f"all pools together ask for {rate:.0f} probes a second, and more than {MOST_PROBES_S}"
            " delay the supervisor's other work: longer interval_ms"
        )
        yield Problem(file, "pool", "", rule)


def _slow_answers(pool: Pool, file: str) -> Iterator[Problem]:
    health = pool.health
    if health.timeout_ms > health.interval_ms:
        late_ms = health.fall * health.timeout_ms
        rule = (
            f"longer than interval_ms = {health.interval_ms}, and a probe begins when the last has"
            f" ended: a backend that hangs is out only after {late_ms} ms (timeout_ms * fall)"
        )
        key = f"{entry('pool', pool.name)}.health.timeout_ms"
        yield Problem(file, key, show(health.timeout_ms), rule)


def _everybody_stays(pool: Pool, file: str) -> Iterator[Problem]:
    count = len(pool.backends)
    if count and least_healthy(pool.min_healthy, count) == count:
        rule = f"that is every one of {count} backends: none is ever taken out for its checks"
        yield Problem(file, f"{entry('pool', pool.name)}.min_healthy", show(pool.min_healthy), rule)


def _probes_s(pool: Pool, vips: int) -> float:
    """Return probes a second, at most: pools that ask the same question share its probes."""
    targets = vips if pool.health.via == "tunnel" else 1
    return len(pool.backends) * targets * 1000 / pool.health.interval_ms
