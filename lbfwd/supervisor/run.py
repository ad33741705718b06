"""``lbfwd run``: start, serve, stop. Whatever was set up is taken away again, in reverse order."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from aiohttp.web import AppRunner

from lbfwd import __version__
from lbfwd.config import Config, ConfigError, IPAddress
from lbfwd.config.fleet import Registration
from lbfwd.fleet.peers import Readiness
from lbfwd.flow import Flow
from lbfwd.health.tunnel import Tunnel
from lbfwd.metrics.exporter import Exporter
from lbfwd.metrics.listener import Listener
from lbfwd.net.doorbell import Doorbell
from lbfwd.net.path_mtu import listening_for_path_mtus
from lbfwd.net.resolve import Net
from lbfwd.supervisor import capabilities, log
from lbfwd.supervisor.alarm import Alarm
from lbfwd.supervisor.announce import Announcer
from lbfwd.supervisor.blocking import be_nice, in_thread
from lbfwd.supervisor.changes import FAILURES, Changes, Forecast, Node, warn
from lbfwd.supervisor.enrolment import Enrolment, Places, registered
from lbfwd.supervisor.errors import SupervisorError, describe
from lbfwd.supervisor.limits import Heap, collect_all, raise_descriptor_limit
from lbfwd.supervisor.live import LiveReport, LiveWatch
from lbfwd.supervisor.lookout import Lookout
from lbfwd.supervisor.notify import Notifier, stuck
from lbfwd.supervisor.observe import Observer
from lbfwd.supervisor.operations import Operations
from lbfwd.supervisor.ports import Ports
from lbfwd.supervisor.reconcile import Parts, Reconciler
from lbfwd.supervisor.registry import Registry
from lbfwd.supervisor.runtime import RuntimeDirectory
from lbfwd.supervisor.shared import SharedConfig, opened
from lbfwd.supervisor.signals import Signals
from lbfwd.supervisor.source import Source
from lbfwd.supervisor.status import Status
from lbfwd.supervisor.summary import Summary
from lbfwd.supervisor.trace import Trace
from lbfwd.supervisor.tracer import Tracer
from lbfwd.supervisor.watch import Watch
from lbfwd.supervisor.workers import STOP_S, Crew
from lbfwd.tables import FlowCount, FlowKey, Tables

RELOAD_SIGNAL = "SIGHUP"
ETCD = "etcd"


class Supervisor:
    """A running node, as the admin socket sees it."""

    def __init__(  # noqa: PLR0913, PLR0917 - what a node is made of
        self,
        source: Source,
        reconciler: Reconciler,
        parts: Parts,
        operations: Operations,
        doors: "Doors",
        shared: SharedConfig,
        places: Places,
    ) -> None:
        """Use ``serve``."""
        self.shared = shared
        self._doors, self._places = doors, places
        self._reconciler = reconciler
        self._crew, self._peering = parts.crew, parts.peering
        self.notifier = Notifier.inherited()
        self.announcer = Announcer(reconciler, parts.crew)
        self._observer = Observer(source.path, reconciler, parts, self.announcer, shared)
        self.enrolment = Enrolment(parts.registry, reconciler, self._observer, places)
        self._tracer = Tracer(reconciler, parts, self._observer)
        self._lookout = Lookout(reconciler, parts)
        self._exporter = Exporter(reconciler, parts, self._observer)
        self._listener = Listener(doors.readonly(self))
        self._heap = Heap()
        self.changes = Changes(
            source,
            Node(reconciler, parts, operations, self._observer, self._apply),
            self._one_reload,
            shared,
        )

    async def status(self) -> Status:
        """Return what the node does now."""
        return await self._observer.observe()

    async def summary(self) -> Summary:
        """Return what nodes of a fleet compare."""
        return await self._observer.summarise()

    async def readiness(self) -> Readiness:
        """Return whether the node takes packets."""
        return await self._observer.readiness()

    async def candidate(self, name: str) -> Forecast:
        """Return what a candidate would do. Raises ConfigError or SupervisorError."""
        return await self.changes.plan_candidate(name)

    async def scrape(self) -> list[bytes]:
        """Return all metrics, in Prometheus' text format, in pieces."""
        return await self._exporter.scrape()

    def listening(self, listen: str) -> AbstractAsyncContextManager[None]:
        """Listen there for those who only look. Raises SupervisorError."""
        return self._listener.at(listen)

    async def open(self, stack: AsyncExitStack, runtime: Path) -> None:
        """Let operators in, and backends that register. Raises SupervisorError."""
        config, clock = self._reconciler.config, asyncio.get_running_loop().time
        registering = self.enrolment, config.registration, self._places.config, clock
        await stack.enter_async_context(self._doors.admin(self, runtime, config.admin.group))
        await stack.enter_async_context(self._doors.registration(*registering))

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
        async with self._listener.moved(config.metrics.listen), self.announcer.changing(config):
            await self._reconciler.apply(config)

    @contextmanager
    def _one_reload(self) -> Iterator[None]:
        with self._exporter.reloads.count(), self.notifier.reloading(), self._heap.changing():
            yield

    async def _tell_service_manager(self) -> None:
        """Tell it the node's status, and that the node is alive, for ever."""
        slots, loop = self._crew.slots, asyncio.get_running_loop()
        await self.notifier.run(
            lambda: (
                f"{len(self._crew.running())} of {len(slots)} workers forward, "
                f"generation {self._reconciler.generation}"
            ),
            lambda: not stuck(slots, loop.time()),
        )

    async def leave(self, hurried: asyncio.Event) -> None:
        """Have routers send their packets elsewhere, and wait until they do.

        ``hurried``: do not wait any longer.
        """
        longest_s = self._reconciler.config.announce.drain_s + 2 * STOP_S
        self.notifier.tell(f"EXTEND_TIMEOUT_USEC={longest_s * 1e6:.0f}")
        await self.announcer.leave(self._packets_to, hurried)

    async def _packets_to(self, vips: Set[IPAddress]) -> int:
        return await in_thread(None, (await self._observer.counts()).packets_to, vips)

    def is_ready(self, config: Config, directory: Path) -> None:
        """Note that the node forwards from now on."""
        self._observer.ready = datetime.now(UTC)
        log.get().info(
            "ready",
            node=config.node.name,
            generation=self._reconciler.generation,
            workers=len(config.workers.cpus),
            interfaces=config.node.interfaces,
            services=len(config.services),
            runtime_dir=str(directory),
        )

    async def _take_up_shared(self) -> None:
        """Take up what etcd said last. Raises ConfigError or SupervisorError."""
        await self.changes.reload(who=ETCD)

    async def run(self, hangup: asyncio.Event) -> None:
        """Do what it does by itself, for ever: at SIGHUP, in time, for those who asked."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._reload_on(hangup))
            tasks.create_task(self.changes.run())
            tasks.create_task(self._lookout.run())
            tasks.create_task(self.shared.run(self._take_up_shared))
            tasks.create_task(self.enrolment.run(self.shared.etcd))
            tasks.create_task(self._tell_service_manager())
            tasks.create_task(self.announcer.run())
            tasks.create_task(self._peering.run(self._reconciler, self.readiness))

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
    ``readonly`` makes what answers at the listener of ``[metrics]``. ``registration`` opens that
    of ``[registration]``, whose relative paths begin in a directory; it measures by a clock.
    """

    admin: Callable[[Supervisor, Path, str], AbstractAsyncContextManager[None]]
    readonly: Callable[[Supervisor], AppRunner]
    registration: Callable[
        [Enrolment, Registration, Path, Callable[[], float]], AbstractAsyncContextManager[None]
    ]


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
            collect_all()
            await asyncio.Event().wait()
    except asyncio.CancelledError:
        if not signals.stopped:
            raise
    except FAILURES as error:
        raise SupervisorError(describe(error)) from error
    finally:
        signals.restore()
    log.get().info("stopped")


async def _start(
    stack: AsyncExitStack, source: Source, directories: Directories, doors: Doors, signals: Signals
) -> None:
    _require_capabilities()
    shared = await stack.enter_async_context(opened(source, directories.state))
    base = await shared.first(source)
    await warn(source, base)
    runtime = RuntimeDirectory.take(directories.runtime)
    stack.callback(runtime.close)
    operations = await in_thread(None, _operations, directories.state)
    places = Places(source.path.parent, directories.state)
    registry = await registered(base, places, shared.etcd)
    reconciler, parts = await _build(stack, base, runtime, operations, registry)
    supervisor = Supervisor(source, reconciler, parts, operations, doors, shared, places)
    await stack.enter_async_context(supervisor.listening(base.metrics.listen))
    await _take_over(stack, supervisor, reconciler, parts, runtime)
    await supervisor.open(stack, runtime.path)
    await _run(stack, supervisor, reconciler, parts, signals)
    supervisor.is_ready(reconciler.config, runtime.path)
    supervisor.notifier.tell("READY=1")
    await supervisor.announcer.keep()


async def _take_over(
    stack: AsyncExitStack,
    supervisor: Supervisor,
    reconciler: Reconciler,
    parts: Parts,
    runtime: RuntimeDirectory,
) -> None:
    """Forward, from those who still do so for a supervisor that died."""
    if not runtime.orphans:
        await supervisor.announcer.discard()
    await parts.crew.start()
    await reconciler.prepare(reconciler.config)
    for orphan in await runtime.end_orphans(STOP_S):
        log.get().warning("orphan_stopped", pid=orphan.pid, reason="its supervisor had died")
    stack.push_async_callback(supervisor.announcer.withdraw)
    await reconciler.expose(reconciler.config)


async def _run(
    stack: AsyncExitStack,
    supervisor: Supervisor,
    reconciler: Reconciler,
    parts: Parts,
    signals: Signals,
) -> None:
    # Last, for it wraps what is raised within: from here on nothing is.
    tasks = await stack.enter_async_context(asyncio.TaskGroup())
    tasks.create_task(parts.crew.run())
    tasks.create_task(reconciler.run())
    tasks.create_task(parts.watch.run(reconciler.republish))
    tasks.create_task(supervisor.run(signals.hangup))
    # While all of these still run: the first thing that a stop does.
    stack.push_async_callback(supervisor.leave, signals.hurried)
    stack.callback(supervisor.notifier.stopping)


def _operations(directory: Path) -> Operations:
    """Read what operators have said of backends; blocks."""
    operations = Operations.load(directory)
    if operations.problem:
        log.get().error("operations_lost", reason=operations.problem)
    return operations


def _net(stack: AsyncExitStack) -> tuple[Net, ThreadPoolExecutor]:
    """Open what looks at the network, and return the one thread that uses it."""
    thread = stack.enter_context(ThreadPoolExecutor(1, "lbfwd-net"))
    stack.enter_context(listening_for_path_mtus())
    net = Net()
    stack.push_async_callback(in_thread, thread, net.close)
    return net, thread


async def _build(
    stack: AsyncExitStack,
    config: Config,
    runtime: RuntimeDirectory,
    operations: Operations,
    registry: Registry,
) -> tuple[Reconciler, Parts]:
    """Make the parts and say how each is taken away; the last one made goes first."""
    net, net_thread = _net(stack)
    tables_thread = stack.enter_context(ThreadPoolExecutor(1, "lbfwd-tables", be_nice))
    slots, flows = len(config.workers.cpus), config.workers.flows
    tables = await in_thread(tables_thread, Tables.create, runtime.path, slots, flows)
    stack.callback(tables.close, unlink=True)
    alarm = Alarm()
    settings = config.settings_by_cpu
    crew = Crew(settings, tables, runtime, alarm.ring)
    ports = Ports(settings, config.workers.fanout)
    watch: Watch = Watch(Tunnel(), lambda: registry.said(operations.get(), watch.passes))
    parts = Parts(net, net_thread, tables, tables_thread, crew, ports, watch, registry)
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
