"""Asks the questions, each in a task of its own, and keeps the verdicts.

A probe that hangs delays only its own question. Probes are spread: at the start over up to an
interval, later by jitter.
"""

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
)
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import cast

from lbfwd.config import Config, IPAddress
from lbfwd.health import probe, probe_token
from lbfwd.health.outcome import PASSED, Outcome, of_os_error
from lbfwd.health.probe_http import HttpProbe, tls_context
from lbfwd.health.question import Dns, Http, Question, Tcp, Token, Udp, questions
from lbfwd.health.route import Direct, NamedRoute, Route, Tunnelled, TunnelRoutes
from lbfwd.health.standing import BackendKey
from lbfwd.health.verdict import Track, Verdict, combined

JITTER = 0.1  # of the interval, to either side
LATE_S = 0.1  # a timeout that is noticed later says more about this node than about the backend
FIRST_PROBES_S = 2000  # a second, at the start

TrackKey = tuple[Question, int, int]  # rise, fall
Ask = Callable[[], Awaitable[Outcome]]
OnChange = Callable[[frozenset[BackendKey]], None]
OnOutcome = Callable[[Collection[str], Outcome], None]


def ignore(_pools: Collection[str], _outcome: Outcome) -> None:
    """Count nothing."""


class Verdicts(Mapping[BackendKey, Verdict]):
    """The verdicts as they are when they are looked up; a backend without one is not there."""

    def __init__(self, tracks: Mapping[BackendKey, tuple[Track, ...]]) -> None:
        """Look at these."""
        self._tracks = tracks

    def __getitem__(self, key: BackendKey) -> Verdict:
        if verdict := combined(self._tracks[key]):
            return verdict
        raise KeyError(key)

    def __iter__(self) -> Iterator[BackendKey]:
        return (key for key, tracks in self._tracks.items() if combined(tracks))

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Monitor:
    """Watches the backends of a configuration."""

    def __init__(
        self, tunnel: TunnelRoutes, on_change: OnChange, on_outcome: OnOutcome = ignore
    ) -> None:
        """Ask nothing yet. ``on_change`` hears of backends whose verdict has turned.

        It hears of one that fails for another reason than before, too. ``on_outcome`` hears of
        every probe, with the pools that it was for.
        """
        self._tunnel = tunnel
        self._on_change = on_change
        self._on_outcome = on_outcome
        self._tasks: dict[Question, asyncio.Task[None]] = {}
        self._asked: dict[Question, list[TrackKey]] = {}
        self._tracks: dict[TrackKey, Track] = {}
        self._affected: dict[TrackKey, frozenset[BackendKey]] = {}
        self._of_backend: dict[BackendKey, tuple[Track, ...]] = {}
        self._wanted: Mapping[BackendKey, tuple[TrackKey, ...]] = {}
        self._pools: dict[Question, frozenset[str]] = {}
        self._waiting: set[TrackKey] = set()
        self._judged = asyncio.Event()
        self._door = asyncio.Lock()

    def verdicts(self) -> Mapping[BackendKey, Verdict]:
        """Return what is known; a backend that nobody asks, or not yet, is not there."""
        return Verdicts(self._of_backend)

    def passes(self, key: BackendKey, address: IPAddress) -> bool:
        """Tell whether a backend passes at this address; a name may have moved to another one."""
        verdict = self.verdicts().get(key)
        return bool(verdict and verdict.passing) and all(
            question.about == address for question, _rise, _fall in self._wanted[key]
        )

    async def apply(self, config: Config, running: Config | None = None) -> None:
        """Ask this configuration's questions from now on; what is asked already goes on.

        Verdicts are about it; what ``running`` asks is not forgotten meanwhile.
        """
        wanted = await asyncio.to_thread(_track_keys, config)
        kept = await asyncio.to_thread(_track_keys, running) if running else {}
        keys = dict.fromkeys(
            key for several in (*wanted.values(), *kept.values()) for key in several
        )
        asked = dict.fromkeys(key[0] for key in keys)
        await self._tunnel.apply(
            {
                Tunnelled(question.target, question.backend, question.mtu_check_s)
                for question in asked
                if question.backend
            }
        )
        await self._cancel([question for question in self._tasks if question not in asked])
        self._follow(wanted, keys)
        tls_context.cache_clear()  # new questions use the certificate store as it is now
        new = [question for question in asked if question not in self._tasks]
        for place, question in enumerate(new):
            delay_s = min(place / FIRST_PROBES_S, question.interval_ms / 1000 * place / len(new))
            self._tasks[question] = asyncio.create_task(self._watch(question, delay_s))

    async def judged(self) -> None:
        """Wait until every question has been answered, or not been, once."""
        await self._judged.wait()

    async def close(self) -> None:
        """Ask nothing more."""
        await self._cancel(list(self._tasks))

    def _follow(
        self, wanted: Mapping[BackendKey, tuple[TrackKey, ...]], keys: Iterable[TrackKey]
    ) -> None:
        """Say which outcomes count for whom; a track that is still wanted goes on counting."""
        known, affected = self._tracks, defaultdict[TrackKey, set[BackendKey]](set)
        self._tracks = {key: known.get(key) or Track(key[1], key[2], str(key[0])) for key in keys}
        self._asked = defaultdict(list)
        for key in self._tracks:
            self._asked[key[0]].append(key)
        for backend, several in wanted.items():
            for key in several:
                affected[key].add(backend)
        self._wanted = wanted
        self._affected = {key: frozenset(backends) for key, backends in affected.items()}
        self._of_backend = {
            backend: tuple(self._tracks[key] for key in several)
            for backend, several in wanted.items()
        }
        self._pools = {
            question: frozenset(pool for key in several for pool, _ in affected.get(key, ()))
            for question, several in self._asked.items()
        }
        self._waiting = {key for key in affected if not self._tracks[key].verdict}
        self._note_judged()

    async def _watch(self, question: Question, delay_s: float) -> None:
        clock = asyncio.get_running_loop().time
        interval_s = question.interval_ms / 1000
        route: Route | NamedRoute = Direct(question.target)
        if question.backend:
            route = self._tunnel.route(question.target, question.backend)
        await asyncio.sleep(delay_s)
        async with asker(question, route) as ask:
            due = clock() - interval_s * random.random()  # noqa: S311 - no secret
            while True:
                async with self._door:  # a turn of the loop for each: what is under way comes first
                    await asyncio.sleep(0)
                self._count(question, await outcome_of(question, ask))
                jitter = random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - no secret
                due = max(due + interval_s * jitter, clock())
                await asyncio.sleep(due - clock())

    def _count(self, question: Question, outcome: Outcome) -> None:
        now = time.time()
        self._on_outcome(self._pools[question], outcome)
        # Not a loop with a generator: every track has to count.
        changed = [key for key in self._asked[question] if self._tracks[key].count(outcome, now)]
        if changed:
            self._waiting.difference_update(changed)
            self._note_judged()
            nobody: frozenset[BackendKey] = frozenset()
            self._on_change(nobody.union(*(self._affected.get(key, nobody) for key in changed)))

    def _note_judged(self) -> None:
        if self._waiting:
            self._judged.clear()
        else:
            self._judged.set()

    async def _cancel(self, questions_: Collection[Question]) -> None:
        tasks = [self._tasks.pop(question) for question in questions_]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _track_keys(config: Config) -> dict[BackendKey, tuple[TrackKey, ...]]:
    """Return whose counting decides about each backend that is asked anything."""
    pools = {pool.name: pool.health for pool in config.pools}
    return {
        (pool, backend): tuple((q, pools[pool].rise, pools[pool].fall) for q in several)
        for (pool, backend), several in questions(config).items()
        if several
    }


@asynccontextmanager
async def asker(question: Question, route: Route | NamedRoute) -> AsyncIterator[Ask]:
    """Give what asks the question once, as often as it is called."""
    match question.ask:
        case Tcp():
            yield partial(probe.tcp, question, route)
        case Udp() as ask:
            yield partial(probe.udp, question, ask, route)
        case Dns() as ask:
            yield partial(probe.dns, question, ask, route)
        case Token():
            yield partial(probe_token.ask, question, cast("NamedRoute", route))
        case Http() as ask:
            async with HttpProbe(question, ask, route) as http:
                yield http.ask


async def outcome_of(question: Question, ask: Ask) -> Outcome:
    """Ask once, within the question's timeout; whatever happens has a name."""
    begun = time.perf_counter()  # uvloop's clock counts in milliseconds
    try:
        async with asyncio.timeout(question.timeout_ms / 1000):
            outcome = await ask()
    except TimeoutError:
        outcome = _silence(question, time.perf_counter() - begun)
    except OSError as error:
        outcome = of_os_error(error)
    except Exception as error:  # a library's surprise is this backend's trouble only
        outcome = Outcome("bad_answer", repr(error))
    return replace(outcome, duration_s=time.perf_counter() - begun)


def _silence(question: Question, waited_s: float) -> Outcome:
    late_s = waited_s - question.timeout_ms / 1000
    if late_s > LATE_S:  # the answer may lie there: we did not come to read it
        return Outcome("late", f"this node was too busy to look, by {late_s * 1000:.0f} ms")
    if isinstance(question.ask, Udp) and not question.ask.expect:
        return PASSED
    return Outcome("timeout", f"no answer within {question.timeout_ms} ms")
