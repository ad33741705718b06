"""Changes to a running node: reload, confirm, undo, and what operators say of backends.

Reloads come one after another: whoever comes second waits, and then takes up what the file says.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from pyroute2.netlink.exceptions import NetlinkError

from lbfwd.config import Config, ConfigError
from lbfwd.health.standing import BackendKey
from lbfwd.net.guard import GuardError
from lbfwd.supervisor import log
from lbfwd.supervisor.blocking import in_thread
from lbfwd.supervisor.errors import Refused, SupervisorError, describe
from lbfwd.supervisor.forecast import ServiceForecast, most_moved
from lbfwd.supervisor.history import History
from lbfwd.supervisor.observe import Observer
from lbfwd.supervisor.operations import Mode, Operation, Operations, find_backend
from lbfwd.supervisor.plan import Change, NeedsRestart, plan
from lbfwd.supervisor.preview import preview
from lbfwd.supervisor.reconcile import Parts, Reconciler
from lbfwd.supervisor.shared import SharedConfig
from lbfwd.supervisor.source import Source
from lbfwd.tables import TablesError

CHANGES_LOGGED = 20
GO_BACK_AGAIN_S = 5.0
# That it is drained or disabled says health/news.py, who did it included.
_EVENTS: Mapping[Mode, str] = {"drained": "backend_undrained", "disabled": "backend_enabled"}
FAILURES = (OSError, TablesError, GuardError, NetlinkError)


@dataclass(frozen=True)
class Terms:
    """Under which a reload is taken up. ``max_moved``: share of a service's buckets, 0 to 1.

    ``confirm_s``: it is taken back after so many seconds, unless it is confirmed.
    """

    max_moved: float | None = None
    confirm_s: float | None = None


@dataclass(frozen=True)
class Reloaded:
    """What a reload did.

    ``not_kept``: why the shared part could not be kept on disk, though it is in service; empty: it
    was, or there is none.
    """

    generation: int
    changes: tuple[Change, ...]
    not_kept: str = ""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Forecast(_Model):
    """What a reload would do. ``restart``: changes that only a restart of lbfwd can take up.

    ``workers``: those for which workers or rings are replaced, one after another. ``assumed``:
    backends ("pool/backend") that are not known yet, and are taken to be well.
    """

    file: str
    changes: tuple[Change, ...]
    workers: tuple[Change, ...]
    restart: tuple[Change, ...]
    services: tuple[ServiceForecast, ...]
    moved: float
    """The largest share of buckets that moves in any service."""
    breaking: int
    """Live flows of all services that would break."""
    assumed: tuple[str, ...]


class BackendReport(_Model):
    """What an operator has said of a backend, and what it still has. ``mode`` empty: nothing."""

    pool: str
    backend: str
    mode: str
    who: str = ""
    when: float = 0.0
    flows: int
    """Live ones."""
    closing: int
    """Of them: a FIN or RST was seen."""
    warning: str = ""


@dataclass(frozen=True)
class Node:
    """What is changed. ``apply``: as a whole, or it raises."""

    reconciler: Reconciler
    parts: Parts
    operations: Operations
    observer: Observer
    apply: Callable[[Config], Awaitable[None]]


class Changes:
    """Takes changes up as a whole, or not at all."""

    def __init__(
        self,
        source: Source,
        node: Node,
        counted: Callable[[], AbstractContextManager[None]],
        shared: SharedConfig,
    ) -> None:
        """Change nothing yet. What is done within ``counted`` is one reload, and its outcome."""
        self._source = source
        self._shared = shared
        self._node = node
        self._reconciler = node.reconciler
        self._operations = node.operations
        self._counted = counted
        self._history = History()
        self._changing = asyncio.Lock()
        self._unexamined = asyncio.Event()
        self._operating = asyncio.Lock()
        self._foreseeing = asyncio.Lock()
        self._log = log.get()

    async def plan(self, text: str, file: str) -> Forecast:
        """Return what taking up this text of a file would do. Raises ConfigError."""
        latest = self._shared.latest
        source = self._source.apart()
        config = await in_thread(None, source.read_text, text, Path(file), latest)
        return await self._foresee(config, file)

    async def plan_candidate(self, name: str) -> Forecast:
        """Return what a shared part would do that waits in etcd. Raises ConfigError or Refused."""
        async with self._foreseeing:
            candidate = await self._shared.candidate(name)
            config = await in_thread(None, self._source.apart().read, candidate)
            return await self._foresee(config, candidate.name)

    async def reload(self, terms: Terms = Terms(), who: str = "") -> Reloaded:
        """Read the configuration again and take it up as a whole.

        Raises ConfigError (NeedsRestart, when only a restart could) or SupervisorError (Refused:
        by its terms, or since another one waits to be confirmed); the node then goes on with what
        it had.
        """
        async with self._changing:
            try:
                with self._counted():
                    self._history.refuse_unconfirmed(_now())
                    shared = self._shared.latest
                    config = await in_thread(None, self._source.read, shared)
                    reloaded = await self._take_up(config, terms)
                    not_kept = await self._shared.took_up(shared, changed=bool(reloaded.changes))
                    reloaded = replace(reloaded, not_kept=not_kept)
            except ConfigError as error:
                for problem in error.problems:
                    self._log.error("reload_refused", who=who, problem=str(problem))
                raise
            except Refused as error:
                self._log.error("reload_refused", who=who, problem=str(error))
                raise
            except (SupervisorError, *FAILURES) as error:
                self._log.error("reload_failed", who=who, reason=describe(error))
                raise SupervisorError(describe(error)) from error
            self._note("reloaded", who, reloaded, confirm_s=terms.confirm_s)
            self._unexamined.set()
            return reloaded

    async def confirm(self, who: str = "") -> None:
        """Keep what a reload with ``confirm_s`` has taken up. Raises Refused: there is none."""
        async with self._changing:  # whoever comes while it is taken back comes too late
            self._history.confirm()
        self._log.info("reload_confirmed", who=who)

    async def undo(self, who: str = "") -> Reloaded:
        """Return to the configuration before the last one, whatever the file says now.

        Raises Refused, when there is none, or SupervisorError.
        """
        async with self._changing:
            return await self._go_back("reload_undone", who)

    async def run(self) -> None:
        """Take back what is not confirmed in time, and warn of what was taken up, for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._take_back())
            tasks.create_task(self._examine())

    async def _examine(self) -> None:
        """Warn of what a reload has taken up: nobody needs to wait for that."""
        while True:
            await self._unexamined.wait()
            self._unexamined.clear()
            try:
                await warn(self._source, self._reconciler.base)
            except Exception:
                self._log.exception("change_crashed")

    async def _take_back(self) -> None:
        while True:
            await self._history.overdue(_now)
            async with self._changing:
                if not self._history.is_overdue(_now()):
                    continue  # confirmed at the last moment, or undone
                try:
                    await self._go_back("reload_expired", "")
                except SupervisorError:  # it is in the log
                    self._history.postpone(_now() + GO_BACK_AGAIN_S)
                except Exception:
                    self._log.exception("change_crashed")
                    self._history.postpone(_now() + GO_BACK_AGAIN_S)

    async def operate(self, mode: Mode, name: str, pool: str | None, who: str) -> BackendReport:
        """Drain or disable a backend, at once. Raises Refused or SupervisorError."""
        async with self._operating:
            key = self._find(name, pool)
            now, since = self._operations.get().get(key), 0.0
            if now is None or now.mode != mode:
                operation = Operation(mode, who, time.time())
                await in_thread(None, self._operations.set, key, operation)
                await self._reconciler.republish()
                since = time.monotonic()  # a count from before may lack a flow that came till now
            return await self._report(key, since)

    async def end_operation(
        self, mode: Mode, name: str, pool: str | None, who: str
    ) -> BackendReport:
        """Take a backend into service again. Raises Refused or SupervisorError."""
        async with self._operating:
            key = self._find(name, pool)
            await in_thread(None, self._operations.end, key, mode)
            self._log.info(_EVENTS[mode], pool=key[0], backend=key[1], who=who)
            await self._reconciler.republish()
            return await self._report(key)

    async def backend(self, name: str, pool: str | None) -> BackendReport:
        """Return what was said of a backend, and how many flows it still has. Raises Refused."""
        return await self._report(self._find(name, pool))

    async def _take_up(self, config: Config, terms: Terms) -> Reloaded:
        running = self._reconciler.base
        changes = await in_thread(None, plan, running, config)
        if changes.restart:
            raise NeedsRestart(changes.problems(str(self._source.path)))
        if terms.max_moved is not None:
            _refuse_moves(await self._foresee(config, str(self._source.path)), terms.max_moved)
        await self._node.apply(config)
        if changes.changes:
            deadline = None if terms.confirm_s is None else _now() + terms.confirm_s
            self._history.took_up(running, deadline)
        return Reloaded(self._reconciler.generation, changes.changes)

    async def _go_back(self, event: str, who: str) -> Reloaded:
        previous = self._history.previous()
        changes = await in_thread(None, plan, self._reconciler.base, previous)
        try:
            with self._counted():
                await self._node.apply(previous)
        except (SupervisorError, *FAILURES) as error:
            self._log.error("undo_failed", who=who, reason=describe(error))
            raise SupervisorError(describe(error)) from error
        self._history.went_back()
        self._shared.went_back()
        reloaded = Reloaded(self._reconciler.generation, changes.changes)
        self._note(event, who, reloaded)
        return reloaded

    async def _foresee(self, config: Config, file: str) -> Forecast:
        node = self._node
        changes = await in_thread(None, plan, node.reconciler.base, config)
        flows = await node.observer.flows()
        services, assumed = await preview(config, node.reconciler, node.parts, flows)
        return Forecast(
            file=file,
            changes=changes.changes,
            workers=changes.workers,
            restart=changes.restart,
            services=services,
            moved=most_moved(services),
            breaking=sum(service.breaking for service in services),
            assumed=tuple(map("/".join, assumed)),
        )

    def _find(self, name: str, pool: str | None) -> BackendKey:
        return find_backend(self._reconciler.config, name, pool, self._operations.get())

    async def _report(self, key: BackendKey, since: float = 0.0) -> BackendReport:
        operation = self._operations.get().get(key)
        flows = await self._flows(key, since)
        said = asdict(operation) if operation else {"mode": ""}
        return BackendReport(
            pool=key[0], backend=key[1], **said, **flows, warning=self._warning(key[0])
        )

    async def _flows(self, key: BackendKey, since: float) -> dict[str, int]:
        found = await self._node.observer.flows_of(key, since)
        return {"flows": found.live, "closing": found.closing}

    def _warning(self, pool: str) -> str:
        state = self._reconciler.state
        pools = state.forwarding.pools if state else ()
        empty = any(
            p.name == pool and not any(m.effective_weight for m in p.members) for p in pools
        )
        return f"no backend of pool {pool} takes new flows" if empty else ""

    def _note(self, event: str, who: str, reloaded: Reloaded, **more: object) -> None:
        shown = [str(change) for change in reloaded.changes[:CHANGES_LOGGED]]
        hidden = len(reloaded.changes) - len(shown)
        generation = reloaded.generation
        self._log.info(event, generation=generation, who=who, changes=shown, more=hidden, **more)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _refuse_moves(forecast: Forecast, most: float) -> None:
    """Raise Refused when more of a service's buckets would move than is allowed."""
    over = [service for service in forecast.services if service.moved > most]
    if over:
        worst = max(over, key=lambda service: service.moved)
        raise Refused(
            f"service {worst.name!r}: {worst.moved:.1%} of its buckets would move, more than"
            f" --max-moved {most:.4g}; {len(over)} services are over it; nothing was changed"
        )


async def warn(source: Source, config: Config) -> None:
    """Log what is allowed but probably not meant."""
    try:
        found = await in_thread(None, source.warn, config)
    except FAILURES as error:  # the machine's addresses could not be read
        found = (describe(error),)
    for warning in found:
        log.get().warning("config_warning", warning=warning)
