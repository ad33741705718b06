"""The crew: one worker process a slot, replaced when it dies or hangs."""

import asyncio
import contextlib
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

from lbfwd.config import WorkerSettings
from lbfwd.supervisor import log
from lbfwd.supervisor.blocking import in_thread
from lbfwd.supervisor.errors import WorkerError, describe
from lbfwd.supervisor.process import Attachment, Orders, WorkerProcess
from lbfwd.supervisor.runtime import RuntimeDirectory
from lbfwd.tables import Tables

LOOK_S = 0.25
HANG_S = 2.0  # a worker's heartbeat moves at least ten times a second
STOP_S = 3.0
DEATHS = 5
DEATHS_WITHIN_S = 30.0
BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 5.0

SlotState = Literal["starting", "running", "abandoned"]


def delay_after(deaths: Sequence[float], now: float, others: bool) -> float | None:
    """Decide how long to wait before a worker is replaced; None: give its share to the others.

    ``deaths``: the times of the slot's deaths, seconds, ascending; ``others``: whether another
    slot still works. The last slot is never given up, it only waits longer.
    """
    recent = sum(1 for death in deaths if now - death <= DEATHS_WITHIN_S)
    if recent <= DEATHS:
        return 0.0
    if others:
        return None
    return float(min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** (recent - DEATHS - 1)))


@dataclass
class Slot:
    """A place in the crew: what it is now, and its history."""

    number: int
    cpu: int
    settings: WorkerSettings
    state: SlotState = "starting"
    worker: WorkerProcess | None = None
    heir: WorkerProcess | None = None
    """Waits for its orders, and takes the slot over when ``worker`` has ended."""
    restarts: int = 0
    deaths: deque[float] = field(default_factory=lambda: deque(maxlen=64))
    heartbeat: int = -1
    moved_at: float = 0.0
    still: int = 0
    """Looks in a row that found the heartbeat unmoved."""

    @property
    def pid(self) -> int | None:
        """The process, if there is one."""
        if self.worker is None or self.worker.identity is None:
            return None
        return self.worker.identity.pid


class Crew:
    """Owns the worker processes. ``changed`` is called when a slot's state changes."""

    def __init__(
        self,
        settings: Mapping[int, WorkerSettings],
        tables: Tables,
        runtime: RuntimeDirectory,
        changed: Callable[[], None],
    ) -> None:
        """Start nothing yet. ``settings``: by cpu, in the order of the slots."""
        self.slots = tuple(Slot(n, cpu, own) for n, (cpu, own) in enumerate(settings.items()))
        self._tables = tables
        self._runtime = runtime
        self._changed = changed
        self._wanted: tuple[Attachment, ...] = ()
        self._starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lbfwd-starter")
        self._log = log.get()

    async def start(self) -> None:
        """Start every worker. Raises WorkerError when one does not come up."""
        try:
            async with asyncio.TaskGroup() as group:
                for slot in self.slots:
                    group.create_task(self._launch(slot))
        except ExceptionGroup as failures:
            first, _rest = failures.split(WorkerError)
            raise (first or failures).exceptions[0] from None

    async def run(self) -> None:
        """Replace whoever dies or hangs, for ever."""
        async with asyncio.TaskGroup() as group:
            for slot in self.slots:
                group.create_task(self._keep(slot))
            group.create_task(self._watch())

    async def stop(self) -> None:
        """End every worker; none is left when this returns. ``run`` has ended before."""
        workers = [(slot, worker) for slot in self.slots for worker in (slot.worker, slot.heir)]
        await asyncio.gather(*(self._end(slot, worker) for slot, worker in workers if worker))
        self._starter.shutdown()

    async def align(self, wanted: Sequence[Attachment]) -> None:
        """Have every worker use these rings, those of the future too.

        When it returns no worker uses another ring: one that did not obey is killed.
        """
        self._wanted = tuple(wanted)
        await asyncio.gather(*(self._align(slot) for slot in self.slots))

    async def renew(self, settings: Mapping[int, WorkerSettings]) -> None:
        """Have every worker run with its settings, by cpu, in the order of the slots.

        Whoever has another cpu or waits in another manner is replaced, one at a time: its successor
        is there before it ends, and finds the packets of the moment in between in the rings. (Rings
        of another shape are handed over by ``align``, and need no other process.) Raises
        WorkerError, and then all have their old settings again, but for those who could not be
        replaced a second time: a slot says what its process runs with.
        """
        before = [(slot.cpu, slot.settings) for slot in self.slots]
        try:
            for slot, (cpu, own) in zip(self.slots, settings.items(), strict=True):
                await self._renew(slot, cpu, own)
        except WorkerError:
            for slot, (cpu, own) in zip(self.slots, before, strict=True):
                with contextlib.suppress(WorkerError):
                    await self._renew(slot, cpu, own)
            raise

    def alive(self) -> frozenset[int]:
        """Return the slots that carry traffic or will again at once."""
        return frozenset(slot.number for slot in self.slots if slot.state != "abandoned")

    def running(self) -> frozenset[int]:
        """Return the slots whose worker forwards."""
        return frozenset(slot.number for slot in self.slots if slot.state == "running")

    async def _renew(self, slot: Slot, cpu: int, settings: WorkerSettings) -> None:
        same = (cpu, settings.busy_poll_us) == (slot.cpu, slot.settings.busy_poll_us)
        if same or slot.state == "abandoned":
            slot.cpu, slot.settings = cpu, settings
        else:
            await self._replace(slot, cpu, settings)

    async def _replace(self, slot: Slot, cpu: int, settings: WorkerSettings) -> None:
        """Put a process of other settings into the slot; it waits there before the old one ends."""
        if slot.worker is None or not await slot.worker.settled():
            raise WorkerError(f"worker {slot.number} has just died: try again")
        retired, heir = slot.worker, self._process(slot.number, cpu, settings)
        slot.heir = heir
        try:
            await heir.appear()
        except WorkerError as error:
            heir.kill()
            if slot.heir is heir:
                slot.heir = None
                await heir.ended()
            raise WorkerError(f"worker {slot.number} (cpu {cpu}): {error}") from error
        slot.cpu, slot.settings = cpu, settings
        await retired.retire(STOP_S)
        if not await heir.settled():
            raise WorkerError(f"worker {slot.number} (cpu {cpu}): its successor did not start")

    async def _keep(self, slot: Slot) -> None:
        """Replace the slot's worker for as long as it makes sense."""
        while True:
            await self._bury(slot)
            if slot.heir is None:
                others = any(other.state == "running" for other in self.slots if other is not slot)
                delay_s = delay_after(slot.deaths, asyncio.get_running_loop().time(), others)
                if delay_s is None:
                    self._abandon(slot)
                    return
                await asyncio.sleep(delay_s)
                slot.restarts += 1
            with contextlib.suppress(WorkerError):
                await self._launch(slot)

    def _process(self, number: int, cpu: int, settings: WorkerSettings) -> WorkerProcess:
        orders = Orders(number, cpu, settings.busy_poll_us, self._tables.files())
        return WorkerProcess(orders, self._starter)

    async def _launch(self, slot: Slot) -> None:
        slot.state = "starting"
        worker = slot.heir or self._process(slot.number, slot.cpu, slot.settings)
        slot.worker, slot.heir = worker, None
        try:
            await worker.start(lambda: self._wanted)
        except WorkerError as error:
            self._log.error("worker_failed", slot=slot.number, pid=slot.pid, reason=str(error))
            worker.kill()
            raise WorkerError(f"worker {slot.number} (cpu {slot.cpu}): {error}") from error
        slot.still, slot.moved_at = 0, asyncio.get_running_loop().time()
        slot.state = "running"
        self._log.info("worker_started", slot=slot.number, pid=slot.pid, cpu=slot.cpu)
        await self._record()
        self._changed()

    async def _bury(self, slot: Slot) -> None:
        assert slot.worker is not None  # noqa: S101 - _launch made it
        pid, reason = slot.pid, await slot.worker.ended()
        slot.state, slot.worker = "starting", None
        if slot.heir is not None:
            self._log.info("worker_replaced", slot=slot.number, pid=pid, reason=reason)
            return
        slot.deaths.append(asyncio.get_running_loop().time())
        self._log.error("worker_died", slot=slot.number, pid=pid, reason=reason)

    def _abandon(self, slot: Slot) -> None:
        slot.state = "abandoned"
        self._log.critical(
            "worker_abandoned",
            slot=slot.number,
            cpu=slot.cpu,
            reason=f"more than {DEATHS} deaths within {DEATHS_WITHIN_S:g} s",
            consequence="its share goes to the other workers until lbfwd is restarted",
        )
        self._changed()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            for slot in self.slots:
                if slot.state == "running":
                    self._look(slot)

    def _look(self, slot: Slot) -> None:
        # Counted in looks, not in seconds: after a pause of the whole machine nobody is accused.
        heartbeat = self._tables.slot(slot.number).heartbeat
        if heartbeat != slot.heartbeat:
            slot.heartbeat, slot.still = heartbeat, 0
            slot.moved_at = asyncio.get_running_loop().time()
            return
        slot.still += 1
        if slot.still * LOOK_S >= HANG_S and slot.worker is not None:
            self._log.error("worker_hung", slot=slot.number, pid=slot.pid, still_s=HANG_S)
            slot.still = 0
            slot.worker.kill()

    async def _align(self, slot: Slot) -> None:
        worker = slot.worker
        if worker is None:
            return
        try:
            await worker.align(lambda: self._wanted)
        except WorkerError as error:
            self._log.error("worker_failed", slot=slot.number, pid=slot.pid, reason=str(error))
            worker.kill()

    async def _end(self, slot: Slot, worker: WorkerProcess) -> None:
        if not await worker.end(STOP_S):
            self._log.warning(
                "worker_killed", slot=slot.number, reason=f"{signal.SIGTERM.name} was not enough"
            )

    async def _record(self) -> None:
        workers = [slot.worker.identity for slot in self.slots if slot.worker]
        running = [identity for identity in workers if identity is not None]
        try:
            await in_thread(self._starter, self._runtime.record, running)
        except OSError as error:  # it matters only to a successor
            self._log.warning("workers_not_recorded", reason=describe(error))
