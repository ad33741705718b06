"""Keeps the standings of the backends: what probes, next hops and operators say, judged anew."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass

from lbfwd.config import Config, IPAddress, Pool
from lbfwd.health.judge import Known, judge, restless
from lbfwd.health.monitor import Monitor
from lbfwd.health.news import news
from lbfwd.health.standing import BackendKey, Standing, Standings
from lbfwd.health.tunnel import Tunnel, TunnelError
from lbfwd.health.verdict import Verdict
from lbfwd.metrics.tally import ProbeTally
from lbfwd.net.resolve import Resolution
from lbfwd.supervisor import log
from lbfwd.supervisor.blocking import in_thread
from lbfwd.supervisor.errors import SupervisorError
from lbfwd.supervisor.operations import Operation

TICK_S = 0.5  # between looks at a slow start or a hold-down
FIRST_ANSWERS_S = 2.0  # that a reload waits for; what takes longer joins when it has answered

Operated = Callable[[], Mapping[BackendKey, Operation]]


class Watch:
    """Owns the monitor. ``standings`` are in force, or about to be."""

    def __init__(self, tunnel: Tunnel, operations: Operated) -> None:
        """Watch nothing yet."""
        self.standings = Standings({})
        self._tunnel = tunnel
        self._operations = operations
        self.probes = ProbeTally()
        self._monitor = Monitor(tunnel, self._hear, self.probes.count)
        self._woken = asyncio.Event()
        self._config: Config | None = None
        self._seen = Known({}, {}, {}, {})
        self._stale: set[str] = set()
        self._restless: set[str] = set()
        self._saved = self.standings
        self._broken = ""  # why the tunnel is, if it is
        self._log = log.get()

    def verdicts(self) -> Mapping[BackendKey, Verdict]:
        """Return what the probes say."""
        return self._monitor.verdicts()

    async def look(self, config: Config, resolutions: Mapping[IPAddress, Resolution]) -> None:
        """Tell the tunnel where the backends are now; its failure is that of its probes only."""
        try:
            await self._tunnel.look(config.node, resolutions)
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
        self._saved = self.standings
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
        if not taken_up:
            self.standings, self._config = self._saved, None
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
        await self._tunnel.close()

    async def judge(self, config: Config, unreachable: Mapping[BackendKey, str]) -> None:
        """Bring the standings up to date and log what is new; one caller at a time."""
        known = Known(
            self._monitor.verdicts(), dict(unreachable), self._operations(), self.standings
        )
        pools = self._to_judge(config, known)
        judged = await in_thread(None, _judge, pools, known, time.time())
        kept = self.standings if config is self._config else Standings({})
        before, self.standings = self.standings, kept.with_pools(judged.by_pool)
        self._restless = (self._restless - {pool.name for pool in pools}) | judged.restless
        self._config, self._seen = config, known
        for event in news(pools, before, self.standings):
            getattr(self._log, event.level)(event.name, **event.fields)

    def _to_judge(self, config: Config, known: Known) -> list[Pool]:
        """Return the pools for which anything may have changed."""
        stale, self._stale = self._stale, set()
        if config is not self._config:
            return list(config.pools)
        operations = known.operations.items() ^ self._seen.operations.items()
        reasons = known.unreachable.items() ^ self._seen.unreachable.items()
        changed = {pool for (pool, _backend), _ in (*operations, *reasons)}
        wanted = stale | self._restless | changed
        return [pool for pool in config.pools if pool.name in wanted]

    def _hear(self, backends: frozenset[BackendKey]) -> None:
        self._stale |= {pool for pool, _backend in backends}
        self._woken.set()


def _probed(config: Config) -> frozenset[str]:
    return frozenset(pool.name for pool in config.pools if pool.health.type != "none")


@dataclass(frozen=True)
class _Judged:
    by_pool: Mapping[str, Mapping[BackendKey, Standing]]
    restless: frozenset[str]


def _judge(pools: Iterable[Pool], known: Known, now: float) -> _Judged:
    by_pool = {pool.name: dict(judge(pool, known, now)) for pool in pools}
    return _Judged(
        by_pool,
        frozenset(n for n, found in by_pool.items() if restless(found, known.verdicts)),
    )
