"""One worker process: started, spoken to, watched by pidfd, ended."""

import asyncio
import json
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnProcess
from typing import Literal

from lbfwd import channel
from lbfwd.ring import Geometry
from lbfwd.supervisor.blocking import in_thread
from lbfwd.supervisor.errors import WorkerError, describe
from lbfwd.supervisor.runtime import ProcessId

START_S = 30.0  # a fresh interpreter, its imports, on a machine that is busy
REPLY_S = 5.0
SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True, eq=False)
class Attachment:
    """A ring set that workers borrow: one socket a slot, each with the shape of its ring.

    Compared by identity: a ring that was made anew under an old index is another ring.
    """

    kind: Literal["rx", "tx"]
    index: int
    geometries: tuple[Geometry, ...]
    fds: tuple[int, ...]


@dataclass(frozen=True)
class Orders:
    """What a worker is told when it starts."""

    slot: int
    cpu: int
    busy_poll_us: int
    files: tuple[int, ...]
    """Descriptors of the control, arena, counters and flows files."""


class WorkerProcess:
    """Owns the process, its channel and its pidfd. After a WorkerError: kill it."""

    def __init__(self, orders: Orders, starter: Executor) -> None:
        """``starter``: one thread that starts and reaps, so that two waits never race."""
        self._orders = orders
        self._starter = starter
        self._lock = asyncio.Lock()
        self._attached: list[Attachment] = []
        self._process: SpawnProcess | None = None
        self._channel: socket.socket | None = None
        self._pidfd = -1
        self._dead = asyncio.Event()
        self._settled = asyncio.Event()
        self._forwards = False
        self.identity: ProcessId | None = None

    async def appear(self) -> None:
        """Start the process, which then waits for its first order. Raises WorkerError."""
        async with self._lock:
            await self._start_process()
            await self._ask({"op": "hello"}, START_S)

    async def start(self, wanted: Callable[[], Sequence[Attachment]]) -> None:
        """Start the process (if need be), hand it the rings and let it forward. Raises WorkerError.

        The slot's last worker has ended: two would write the same shared memory.
        """
        async with self._lock:
            if self._process is None:
                await self._start_process()
            orders = self._orders
            start = {"op": "start", "slot": orders.slot, "cpu": orders.cpu}
            start["busy_poll_us"] = orders.busy_poll_us
            await self._ask(start, START_S, orders.files)
            await self._align(wanted())
            await self._ask({"op": "go"}, REPLY_S)
            self._forwards = True
            self._settled.set()

    async def settled(self) -> bool:
        """Wait until it forwards or has ended. Returns whether it forwards."""
        await self._settled.wait()
        return self._forwards and not self._dead.is_set()

    async def align(self, wanted: Callable[[], Sequence[Attachment]]) -> None:
        """Make the worker's rings the wanted ones. Waits for a start. Raises WorkerError."""
        async with self._lock:
            if not self._dead.is_set():
                await self._align(wanted())

    async def ended(self) -> str:
        """Wait for the process to end, free what belonged to it and say how it ended."""
        if self._pidfd < 0:
            return "was never started"
        await self._dead.wait()
        reason = await in_thread(self._starter, self._reap)
        self._close()
        return reason

    def kill(self, signum: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal, if there still is a process."""
        if self._pidfd >= 0 and not self._dead.is_set():
            signal.pidfd_send_signal(self._pidfd, signum)

    async def retire(self, grace_s: float) -> None:
        """Have the process end itself between two bursts; whoever waits in ``ended`` buries it."""
        self.kill(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace_s):
                await self._dead.wait()
        except TimeoutError:
            self.kill()

    async def end(self, grace_s: float) -> bool:
        """SIGTERM, then SIGKILL after ``grace_s``. Returns whether SIGTERM was enough."""
        self.kill(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace_s):
                await self.ended()
        except TimeoutError:
            self.kill()
            await self.ended()
            return False
        return True

    async def _start_process(self) -> None:
        try:
            await in_thread(self._starter, self._spawn)
        except OSError as error:
            raise WorkerError(f"cannot start a process: {describe(error)}") from error
        finally:
            # Also when cancelled: whoever ends this process waits for its death.
            if self._pidfd >= 0:
                asyncio.get_running_loop().add_reader(self._pidfd, self._on_death)

    def _spawn(self) -> None:
        # Imported here: the supervisor's own start must not depend on the data plane's.
        from lbfwd.workers.forward import main  # noqa: PLC0415

        # Ctrl-C and a hang-up reach the whole process group, but only the supervisor ends a
        # worker; a blocked signal stays blocked in the new process. The tracker of multiprocessing
        # unblocks SIGINT when it starts, so it comes first.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self._channel = ours
        name = f"lbfwd-worker-{self._orders.slot}"
        with theirs:
            process = SPAWN.Process(target=main, args=(theirs,), name=name, daemon=True)
            process.start()
        assert process.pid is not None  # noqa: S101 - it was just started
        self._process = process
        self._pidfd = os.pidfd_open(process.pid)
        self.identity = ProcessId.of(process.pid)

    def _reap(self) -> str:
        assert self._process is not None  # noqa: S101 - there is a pidfd, so there is a process
        self._process.join()
        return describe_exit(self._process.exitcode or 0)

    def _on_death(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        self._dead.set()
        self._settled.set()

    def _close(self) -> None:
        os.close(self._pidfd)
        self._pidfd = -1
        if self._channel is not None:
            self._channel.close()

    async def _align(self, wanted: Sequence[Attachment]) -> None:
        # Receiving stops before, and begins after, the rings that it sends on are there.
        surplus = [ring for ring in self._attached if ring not in wanted]
        for ring in sorted(surplus, key=lambda ring: ring.kind):
            await self._ask({"op": f"remove_{ring.kind}", "index": ring.index}, REPLY_S)
            self._attached.remove(ring)
        lacking = [ring for ring in wanted if ring not in self._attached]
        for ring in sorted(lacking, key=lambda ring: ring.kind, reverse=True):
            slot = self._orders.slot
            geometry = asdict(ring.geometries[slot])
            message = {"op": f"add_{ring.kind}", "index": ring.index, "geometry": geometry}
            await self._ask(message, REPLY_S, [ring.fds[slot]])
            self._attached.append(ring)

    async def _ask(
        self, message: channel.Message, timeout_s: float, fds: Sequence[int] = ()
    ) -> None:
        assert self._channel is not None  # noqa: S101 - _spawn made it
        operation = message["op"]
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout_s):
                channel.send(self._channel, message, fds)
                data = await loop.sock_recv(self._channel, channel.MAX_MESSAGE)
        except TimeoutError:
            raise WorkerError(f"{operation}: no answer within {timeout_s:g} s") from None
        except OSError as error:
            raise WorkerError(f"{operation}: {describe(error)}") from error
        if not data:
            raise WorkerError(f"{operation}: the worker closed its channel")
        reply: channel.Message = json.loads(data)
        if "error" in reply:
            raise WorkerError(f"{operation}: {reply['error']}")


def describe_exit(exitcode: int) -> str:
    """Say in words how a process ended; negative: the signal that killed it."""
    if exitcode >= 0:
        return f"exited with status {exitcode}"
    try:
        return f"killed by {signal.Signals(-exitcode).name}"
    except ValueError:
        return f"killed by signal {-exitcode}"
