"""Keeps the standings of the backends: what probes, next hops and operators say, judged anew."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass

from lbfwd.config import Config, IPAddress, Pool
from lbfwd.health.judge import Known, Operation, judge, restless
from lbfwd.health.monitor import Monitor
from lbfwd.health.news import news
from lbfwd.health.standing import BackendKey, Standing, Standings, of_pool
from lbfwd.health.tunnel import Tunnel, TunnelError
from lbfwd.health.verdict import Verdict
from lbfwd.metrics.tally import ProbeTally
from lbfwd.net.resolve import Resolution
from lbfwd.supervisor import log
from lbfwd.supervisor.blocking import in_thread
from lbfwd.supervisor.errors import SupervisorError

TICK_S = 0.5  # between looks at a slow start or a hold-down
FIRST_ANSWERS_S = 2.0  # that a reload waits for; what takes longer joins when it has answered

Operated = Callable[[], Mapping[BackendKey, Operation]]


class Watch:
    """Owns the monitor. ``standings`` are in force, or about to be."""

    def __init__(self, tunnel: Tunnel, operations: Operated) -> None:
        """Watch nothing yet."""
        self.standings = Standings({})
        self.tunnel = tunnel
        self._operations = operations
        self.probes = ProbeTally()
        self._monitor = Monitor(tunnel, self._hear, self.probes.count)
        self._woken = asyncio.Event()
        self._config: Config | None = None
        self._seen = Known({}, {}, {}, {})
        self._stale: set[str] = set()
        self._restless: set[str] = set()
        self._saved: Standings | None = None  # while another configuration is tried
        self._broken = ""  # why the tunnel is, if it is
        self._log = log.get()

    def verdicts(self) -> Mapping[BackendKey, Verdict]:
        """Return what the probes say."""
        return self._monitor.verdicts()

    def passes(self, key: BackendKey, address: IPAddress) -> bool:
        """Tell whether a backend passes its probes at this address."""
        return self._monitor.passes(key, address)

    def said(self) -> Mapping[BackendKey, Operation]:
        """Return what operators say of backends, and what follows from their registrations."""
        return self._operations()

    async def look(self, config: Config, resolutions: Mapping[IPAddress, Resolution]) -> None:
        """Tell the tunnel where the backends are now; its failure is that of its probes only."""
        try:
            await self.tunnel.look(config.node, resolutions)
        except TunnelError as error:
            if str(error) != self._broken:
                self._log.error("probe_tunnel_failed", reason=str(error))
            self._broken = str(error)
        else:
            self._broken = ""

    async def prepare(self, config: Config, running: Config) -> None:
        """Ask about another configuration, and about the running one too, until it is decided.

        Waits for first answers: at the start for all, later for as long as is bearable. Raises
        SupervisorError when there can be no tunnel.
        """
        self._saved = None if config is running else self.standings
        self.probes.keep(_probed(config) | _probed(running))
        try:
            await self._monitor.apply(config, running)
        except TunnelError as error:
            raise SupervisorError(str(error)) from error
        longest = FIRST_ANSWERS_S if self.standings else None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(longest):
                await self._monitor.judged()

    async def settle(self, config: Config, *, taken_up: bool) -> None:
        """Go on with this configuration alone; one that was not taken up leaves no trace."""
        if self._saved is not None and not taken_up:
            self.standings, self._config = self._saved, None
        self._saved = None
        self.probes.keep(_probed(config))
        with contextlib.suppress(TunnelError):  # it was there for this configuration, or is not now
            await self._monitor.apply(config)

    async def run(self, republish: Callable[[], Awaitable[None]]) -> None:
        """Have every change of a standing take effect, for ever."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S if self._restless else None):
                    await self._woken.wait()
            self._woken.clear()
            await republish()

    async def close(self) -> None:
        """Stop the probes, then take the tunnel away."""
        await self._monitor.close()
        await self.tunnel.close()

    async def judge(self, config: Config, unreachable: Mapping[BackendKey, str]) -> None:
        """Bring the standings up to date and log what is new; one caller at a time."""
        known = Known(self._monitor.verdicts(), unreachable, self._operations(), self.standings)
        pools = self._to_judge(config, known)
        judged = await in_thread(None, _judge, pools, known, time.time())
        before, self.standings = self.standings, self._taken_over(config, judged.by_pool)
        moving = (self._restless - {pool.name for pool in pools}) | judged.restless
        self._restless = {name for name in moving if self.standings.of(name)}  # it is still there
        self._config, self._seen = config, known
        changed = [
            pool for pool in pools if self.standings.of(pool.name) is not before.of(pool.name)
        ]
        for event in news(changed, before, self.standings):
            getattr(self._log, event.level)(event.name, **event.fields)

    def _to_judge(self, config: Config, known: Known) -> list[Pool]:
        """Return the pools for which anything may have changed."""
        stale, self._stale = self._stale, set()
        old = {id(pool) for pool in self._config.pools} if self._config else set()
        operations = _unlike(known.operations, self._seen.operations)
        reasons = _unlike(known.unreachable, self._seen.unreachable)
        wanted = stale | self._restless | {pool for pool, _backend in operations | reasons}
        if self._config is None or config.services is not self._config.services:
            wanted |= _probed(config)  # with other services, other questions decide
        return [pool for pool in config.pools if id(pool) not in old or pool.name in wanted]

    def _taken_over(
        self, config: Config, judged: Mapping[str, Mapping[BackendKey, Standing]]
    ) -> Standings:
        """Return the standings with some judged anew, and of these pools only."""
        if config is self._config:
            return self.standings.with_pools(judged)
        kept = {pool.name: self.standings.of(pool.name) for pool in config.pools}
        return Standings(kept).with_pools(judged)

    def _hear(self, backends: frozenset[BackendKey]) -> None:
        self._stale |= {pool for pool, _backend in backends}
        self._woken.set()


def _probed(config: Config) -> frozenset[str]:
    return frozenset(
        pool.name for pool in config.pools if pool.health.type != "none" or pool.registration
    )


@dataclass(frozen=True)
class _Judged:
    by_pool: Mapping[str, Mapping[BackendKey, Standing]]
    restless: frozenset[str]


def _unlike(
    one: Mapping[BackendKey, object], other: Mapping[BackendKey, object]
) -> set[BackendKey]:
    """Return the backends of which not the same is said."""
    if one is other:
        return set()
    return {key for key, _ in one.items() ^ other.items()}


def _judge(pools: Iterable[Pool], known: Known, now: float) -> _Judged:
    by_pool = {pool.name: _judge_pool(pool, known, now) for pool in pools}
    return _Judged(
        by_pool,
        frozenset(n for n, found in by_pool.items() if restless(found, known.verdicts)),
    )


def _judge_pool(pool: Pool, known: Known, now: float) -> Mapping[BackendKey, Standing]:
    """Return its standings: the same object when they have not changed, so that it is seen."""
    before, judged = of_pool(known.before, pool.name), judge(pool, known, now)
    return before if before == judged else judged
