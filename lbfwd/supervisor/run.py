"""``lbfwd run``: start, serve, stop. Whatever was set up is taken away again, in reverse order."""

import asyncio
import signal
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from pyroute2.netlink.exceptions import NetlinkError

from lbfwd import __version__
from lbfwd.config import Config, ConfigError, load
from lbfwd.config.machine import this_machine
from lbfwd.config.warn import warnings
from lbfwd.net.doorbell import Doorbell
from lbfwd.net.guard import GuardError
from lbfwd.net.path_mtu import listening_for_path_mtus
from lbfwd.net.resolve import Net
from lbfwd.supervisor import capabilities, log
from lbfwd.supervisor.blocking import in_thread
from lbfwd.supervisor.errors import SupervisorError, describe
from lbfwd.supervisor.observe import Observer
from lbfwd.supervisor.plan import Change, NeedsRestart, plan
from lbfwd.supervisor.ports import Ports
from lbfwd.supervisor.reconcile import Alarm, Parts, Reconciler
from lbfwd.supervisor.runtime import RuntimeDirectory
from lbfwd.supervisor.status import Status
from lbfwd.supervisor.workers import STOP_S, Crew
from lbfwd.tables import Tables, TablesError

CHANGES_LOGGED = 20
FAILURES = (OSError, TablesError, GuardError, NetlinkError)


@dataclass(frozen=True)
class Source:
    """Where the configuration comes from: a file, and flags that stand for its ``[workers]``."""

    path: Path
    workers: Mapping[str, object]

    def read(self) -> Config:
        """Read and check against this machine. Blocks. Raises ConfigError or OSError."""
        return load(self.path, self.workers, this_machine())

    def warn(self, config: Config) -> tuple[str, ...]:
        """Return what an operator should look at again. Blocks."""
        found = warnings(config, str(self.path), flags=tuple(self.workers))
        return tuple(map(str, found))


@dataclass(frozen=True)
class Reloaded:
    """What a reload did."""

    generation: int
    changes: tuple[Change, ...]


class Supervisor:
    """A running node, as the admin socket sees it."""

    def __init__(self, source: Source, reconciler: Reconciler, parts: Parts) -> None:
        """Use ``serve``."""
        self._source = source
        self._reconciler = reconciler
        self._observer = Observer(str(source.path.absolute()), reconciler, parts)
        self._reloading = asyncio.Lock()
        self._log = log.get()

    async def status(self) -> Status:
        """Return what the node does now."""
        return await self._observer.observe()

    async def reload(self) -> Reloaded:
        """Read the configuration again and take it up as a whole.

        Raises ConfigError (NeedsRestart, when only a restart could), or SupervisorError; the node
        then goes on with what it had.
        """
        async with self._reloading:
            try:
                reloaded = await self._take_up()
            except ConfigError as error:
                for problem in error.problems:
                    self._log.error("reload_refused", problem=str(problem))
                raise
            except (SupervisorError, *FAILURES) as error:
                self._log.error("reload_failed", reason=describe(error))
                raise SupervisorError(describe(error)) from error
            await warn(self._source, self._reconciler.config)
            shown = [str(change) for change in reloaded.changes[:CHANGES_LOGGED]]
            more = len(reloaded.changes) - len(shown)
            self._log.info("reloaded", generation=reloaded.generation, changes=shown, more=more)
            return reloaded

    async def _take_up(self) -> Reloaded:
        config = await in_thread(None, self._source.read)
        changes = plan(self._reconciler.config, config)
        if changes.restart:
            raise NeedsRestart(changes.problems(str(self._source.path)))
        await self._reconciler.apply(config)
        return Reloaded(self._reconciler.generation, changes.changes)

    async def reload_on(self, hangup: asyncio.Event) -> None:
        """Reload at every SIGHUP; what is wrong is in the log."""
        while True:
            await hangup.wait()
            hangup.clear()
            try:
                await self.reload()
            except (ConfigError, SupervisorError):
                continue


Admin = Callable[[Supervisor, Path], AbstractAsyncContextManager[None]]
"""Opens the admin socket in the runtime directory."""


async def serve(
    path: Path, workers: Mapping[str, object], runtime_directory: Path, admin: Admin
) -> None:
    """Run until SIGTERM or SIGINT, then restore everything.

    ``workers``: ``[workers]`` keys from the command line. Raises ConfigError or SupervisorError
    when the node cannot start; then, too, everything is as it was.
    """
    log.configure()
    signals = Signals()
    log.get().info("starting", version=__version__, config=str(path))
    try:
        async with AsyncExitStack() as stack:
            source = Source(path, workers)
            await _start(stack, source, runtime_directory, admin, signals)
            await asyncio.Event().wait()
    except asyncio.CancelledError:
        if not signals.stopped:
            raise
    except FAILURES as error:
        raise SupervisorError(describe(error)) from error
    finally:
        signals.restore()
    log.get().info("stopped")


class Signals:
    """SIGTERM and SIGINT cancel the main task, once; SIGHUP asks for a reload."""

    STOP = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        """Take the signals over; the caller is the main task."""
        self.stopped = False
        self.hangup = asyncio.Event()
        self._main = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        for number in self.STOP:
            self._loop.add_signal_handler(number, self._stop, number)
        self._loop.add_signal_handler(signal.SIGHUP, self.hangup.set)

    def restore(self) -> None:
        """Give the signals back; a process that ends because of one needs no second."""
        for number in (*self.STOP, signal.SIGHUP):
            self._loop.remove_signal_handler(number)
            if self.stopped:
                signal.signal(number, signal.SIG_IGN)

    def _stop(self, number: signal.Signals) -> None:
        # A second Ctrl-C must not break the clean-up that the first one has begun.
        if not self.stopped and self._main is not None:
            self.stopped = True
            log.get().info("stopping", signal=number.name)
            self._main.cancel()


async def _start(
    stack: AsyncExitStack,
    source: Source,
    directory: Path,
    admin: Admin,
    signals: Signals,
) -> None:
    _require_capabilities()
    config = await in_thread(None, source.read)
    await warn(source, config)
    runtime = RuntimeDirectory.take(directory)
    stack.callback(runtime.close)
    reconciler, parts = await _build(stack, config, runtime)
    await parts.crew.start()
    await reconciler.prepare(config)
    for orphan in await runtime.end_orphans(STOP_S):
        log.get().warning("orphan_stopped", pid=orphan.pid, reason="its supervisor had died")
    await reconciler.expose(config)
    supervisor = Supervisor(source, reconciler, parts)
    await stack.enter_async_context(admin(supervisor, directory))
    # Last, for it wraps what is raised within: from here on nothing is.
    tasks = await stack.enter_async_context(asyncio.TaskGroup())
    tasks.create_task(parts.crew.run())
    tasks.create_task(reconciler.run())
    tasks.create_task(supervisor.reload_on(signals.hangup))
    _log_ready(config, reconciler.generation, directory)


def _log_ready(config: Config, generation: int, directory: Path) -> None:
    log.get().info(
        "ready",
        node=config.node.name,
        generation=generation,
        workers=len(config.workers.cpus),
        interfaces=config.node.interfaces,
        services=len(config.services),
        runtime_dir=str(directory),
    )


async def _build(
    stack: AsyncExitStack, config: Config, runtime: RuntimeDirectory
) -> tuple[Reconciler, Parts]:
    """Make the parts and say how each is taken away; the last one made goes first."""
    net_thread = stack.enter_context(ThreadPoolExecutor(1, "lbfwd-net"))
    tables_thread = stack.enter_context(ThreadPoolExecutor(1, "lbfwd-tables"))
    slots, flows = len(config.workers.cpus), config.workers.flows
    tables = await in_thread(tables_thread, Tables.create, runtime.path, slots, flows)
    stack.callback(tables.close, unlink=True)
    stack.enter_context(listening_for_path_mtus())
    net = Net()
    stack.push_async_callback(in_thread, net_thread, net.close)
    alarm = Alarm()
    settings = config.settings_by_cpu
    crew = Crew(settings, tables, runtime, alarm.ring)
    ports = Ports(settings, config.workers.fanout)
    parts = Parts(net, net_thread, tables, tables_thread, crew, ports)
    reconciler = Reconciler(config, parts, alarm)
    stack.push_async_callback(reconciler.unguard)
    stack.push_async_callback(ports.close_all)
    stack.push_async_callback(crew.stop)
    stack.callback(ports.shut)
    loop = asyncio.get_running_loop()
    doorbell = Doorbell(loop, lambda rang: alarm.ring(suspicious="nftables" in rang))
    stack.callback(doorbell.close)
    return reconciler, parts


def _require_capabilities() -> None:
    if lacking := capabilities.missing_here():
        raise SupervisorError(
            f"No permission: {' and '.join(lacking)} missing; "
            "lbfwd opens packet sockets and changes nftables: run it as root"
        )


async def warn(source: Source, config: Config) -> None:
    """Log what is allowed but probably not meant."""
    try:
        found = await in_thread(None, source.warn, config)
    except FAILURES as error:  # the machine's addresses could not be read
        found = (describe(error),)
    for warning in found:
        log.get().warning("config_warning", warning=warning)
