"""``lbfwd run``: start, serve, stop. Whatever was set up is taken away again, in reverse order."""

import asyncio
import signal
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from aiohttp.web import AppRunner

from lbfwd import __version__
from lbfwd.config import Config, ConfigError
from lbfwd.flow import Flow
from lbfwd.health.tunnel import Tunnel
from lbfwd.metrics.exporter import Exporter
from lbfwd.metrics.listener import Listener
from lbfwd.net.doorbell import Doorbell
from lbfwd.net.path_mtu import listening_for_path_mtus
from lbfwd.net.resolve import Net
from lbfwd.supervisor import capabilities, log
from lbfwd.supervisor.blocking import be_nice, in_thread
from lbfwd.supervisor.changes import FAILURES, Changes, Node, warn
from lbfwd.supervisor.errors import SupervisorError, describe
from lbfwd.supervisor.limits import raise_descriptor_limit, shorten_collections
from lbfwd.supervisor.live import LiveReport, LiveWatch
from lbfwd.supervisor.lookout import Lookout
from lbfwd.supervisor.observe import Observer
from lbfwd.supervisor.operations import Operations
from lbfwd.supervisor.ports import Ports
from lbfwd.supervisor.reconcile import Alarm, Parts, Reconciler
from lbfwd.supervisor.runtime import RuntimeDirectory
from lbfwd.supervisor.source import Source
from lbfwd.supervisor.status import Status
from lbfwd.supervisor.trace import Trace
from lbfwd.supervisor.tracer import Tracer
from lbfwd.supervisor.watch import Watch
from lbfwd.supervisor.workers import STOP_S, Crew
from lbfwd.tables import FlowCount, FlowKey, Tables

RELOAD_SIGNAL = "SIGHUP"
COLLECT_S = 1.0  # after a change: its answer goes first


class Supervisor:
    """A running node, as the admin socket sees it."""

    def __init__(
        self,
        source: Source,
        reconciler: Reconciler,
        parts: Parts,
        operations: Operations,
        doors: "Doors",
    ) -> None:
        """Use ``serve``."""
        self._reconciler = reconciler
        self._observer = Observer(str(source.path.absolute()), reconciler, parts)
        self._tracer = Tracer(reconciler, parts, self._observer)
        self._lookout = Lookout(reconciler, parts)
        self._exporter = Exporter(reconciler, parts, self._observer)
        self._listener = Listener(doors.readonly(self))
        self.changes = Changes(
            source,
            Node(reconciler, parts, operations, self._observer, self._apply),
            self._exporter.reloads.count,
        )

    async def status(self) -> Status:
        """Return what the node does now."""
        return await self._observer.observe()

    async def scrape(self) -> list[bytes]:
        """Return all metrics, in Prometheus' text format, in pieces."""
        return await self._exporter.scrape()

    def listening(self, listen: str) -> AbstractAsyncContextManager[None]:
        """Listen there for those who only look. Raises SupervisorError."""
        return self._listener.at(listen)

    async def trace(self, flow: Flow) -> Trace:
        """Return what would become of the flow's next packet. Raises SupervisorError."""
        return await self._tracer.trace(flow)

    async def watch(self, token: bytes, seconds: float) -> LiveWatch:
        """Look for a marked packet. Raises SupervisorError (Refused, TooSoon)."""
        return await self._lookout.watch(token, seconds)

    async def report(self, token: bytes) -> LiveReport:
        """Return how it went, once it was seen or the time is over. Raises Refused."""
        return await self._lookout.report(token)

    async def flows(self) -> Mapping[FlowKey, FlowCount]:
        """Return the live flows by service and backend. Raises OSError."""
        return await self._observer.flows()

    async def _apply(self, config: Config) -> None:
        """Take up another configuration as a whole, or raise and go on with the present one."""
        async with self._listener.moved(config.metrics.listen):
            await self._reconciler.apply(config)
        asyncio.get_running_loop().call_later(COLLECT_S, shorten_collections)

    async def run(self, hangup: asyncio.Event) -> None:
        """Do what it does by itself, for ever: at SIGHUP, in time, for those who asked."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._reload_on(hangup))
            tasks.create_task(self.changes.run())
            tasks.create_task(self._lookout.run())

    async def _reload_on(self, hangup: asyncio.Event) -> None:
        """Reload at every SIGHUP; what is wrong is in the log."""
        while True:
            await hangup.wait()
            hangup.clear()
            try:
                await self.changes.reload(who=RELOAD_SIGNAL)
            except (ConfigError, SupervisorError):
                continue
            except Exception:
                log.get().exception("change_crashed")


@dataclass(frozen=True)
class Doors:
    """What others come in by.

    ``admin`` opens the admin socket in the runtime directory, for the members of a group.
    ``readonly`` makes what answers at the listener of ``[metrics]``.
    """

    admin: Callable[[Supervisor, Path, str], AbstractAsyncContextManager[None]]
    readonly: Callable[[Supervisor], AppRunner]


@dataclass(frozen=True)
class Directories:
    """``runtime``: sockets and shared memory. ``state``: what survives a restart."""

    runtime: Path
    state: Path


async def serve(
    path: Path, workers: Mapping[str, object], directories: Directories, doors: Doors
) -> None:
    """Run until SIGTERM or SIGINT, then restore everything.

    ``workers``: ``[workers]`` keys from the command line. Raises ConfigError or SupervisorError
    when the node cannot start; then, too, everything is as it was.
    """
    log.configure()
    raise_descriptor_limit()
    signals = Signals()
    log.get().info("starting", version=__version__, config=str(path))
    try:
        async with AsyncExitStack() as stack:
            source = Source(path, workers)
            await _start(stack, source, directories, doors, signals)
            shorten_collections()
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
    directories: Directories,
    doors: Doors,
    signals: Signals,
) -> None:
    _require_capabilities()
    config = await in_thread(None, source.read)
    await warn(source, config)
    runtime = RuntimeDirectory.take(directories.runtime)
    stack.callback(runtime.close)
    operations = await in_thread(None, _operations, directories.state)
    reconciler, parts = await _build(stack, config, runtime, operations)
    supervisor = Supervisor(source, reconciler, parts, operations, doors)
    await stack.enter_async_context(supervisor.listening(config.metrics.listen))
    await parts.crew.start()
    await reconciler.prepare(config)
    for orphan in await runtime.end_orphans(STOP_S):
        log.get().warning("orphan_stopped", pid=orphan.pid, reason="its supervisor had died")
    await reconciler.expose(config)
    await stack.enter_async_context(doors.admin(supervisor, runtime.path, config.admin.group))
    # Last, for it wraps what is raised within: from here on nothing is.
    tasks = await stack.enter_async_context(asyncio.TaskGroup())
    tasks.create_task(parts.crew.run())
    tasks.create_task(reconciler.run())
    tasks.create_task(parts.watch.run(reconciler.republish))
    tasks.create_task(supervisor.run(signals.hangup))
    _log_ready(config, reconciler.generation, runtime.path)


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


def _operations(directory: Path) -> Operations:
    """Read what operators have said of backends; blocks."""
    operations = Operations.load(directory)
    if operations.problem:
        log.get().error("operations_lost", reason=operations.problem)
    return operations


async def _build(
    stack: AsyncExitStack, config: Config, runtime: RuntimeDirectory, operations: Operations
) -> tuple[Reconciler, Parts]:
    """Make the parts and say how each is taken away; the last one made goes first."""
    net_thread = stack.enter_context(ThreadPoolExecutor(1, "lbfwd-net"))
    tables_thread = stack.enter_context(ThreadPoolExecutor(1, "lbfwd-tables", be_nice))
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
    watch = Watch(Tunnel(), operations.get)
    parts = Parts(net, net_thread, tables, tables_thread, crew, ports, watch)
    reconciler = Reconciler(config, parts, alarm)
    stack.push_async_callback(reconciler.unguard)
    stack.push_async_callback(ports.close_all)
    stack.push_async_callback(crew.stop)
    stack.callback(ports.shut)
    loop = asyncio.get_running_loop()
    doorbell = Doorbell(loop, lambda rang: alarm.ring(suspicious="nftables" in rang))
    stack.callback(doorbell.close)
    stack.push_async_callback(watch.close)
    return reconciler, parts


def _require_capabilities() -> None:
    if lacking := capabilities.missing_here():
        raise SupervisorError(
            f"No permission: {' and '.join(lacking)} missing; "
            "lbfwd opens packet sockets and changes nftables: run it as root"
        )
