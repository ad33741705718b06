"""Looks for marked packets: arms the workers for a short time, and reads what they found."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from lbfwd.forwarding import ServiceState
from lbfwd.live import Found, Marks
from lbfwd.shared import INCARNATION_MASK
from lbfwd.snapshot import BackendKey, service_key
from lbfwd.supervisor import log
from lbfwd.supervisor.blocking import in_thread
from lbfwd.supervisor.errors import Refused, SupervisorError, TooSoon
from lbfwd.supervisor.live import LivePacket, LiveReport, LiveWatch
from lbfwd.supervisor.reconcile import Parts, Reconciler
from lbfwd.supervisor.rings import Receiver, Transmitter
from lbfwd.supervisor.trace import outcome
from lbfwd.tables import Seats

LOOK_S = 0.01
LEAST_PAUSE_S = 1.0  # from one watch's beginning to the next one's


@dataclass
class _Watch:
    """One token, looked for from ``began_s`` to ``until_s`` (CLOCK_MONOTONIC)."""

    token: bytes
    began_s: float
    until_s: float
    armed: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    packet: LivePacket | None = None

    @property
    def left_s(self) -> float:
        return max(0.0, self.until_s - time.monotonic())


class Lookout:
    """At most one token at a time. Only ``run`` touches the memory that workers read."""

    def __init__(self, reconciler: Reconciler, parts: Parts) -> None:
        """Use what a running node has."""
        self._reconciler = reconciler
        self._parts = parts
        self._watch: _Watch | None = None
        self._asked = asyncio.Event()

    async def run(self) -> None:
        """Do what ``watch`` is asked for, for ever."""
        control_fd = self._parts.tables.files()[0]
        with closing(Marks(control_fd, len(self._parts.crew.slots))) as marks:
            while True:
                await self._asked.wait()
                self._asked.clear()
                if self._watch:
                    await self._try(marks, self._watch)

    async def watch(self, token: bytes, seconds: float) -> LiveWatch:
        """Look for a token; when this returns the workers do. ``seconds``: LONGEST_WATCH_S at most.

        Raises Refused while another one is looked for, TooSoon soon after another one.
        """
        if self._reconciler.state is None:
            raise SupervisorError("nothing is published yet: lbfwd starts")
        watch = self._watch
        if watch is None or watch.token != token or watch.ended.is_set():
            watch = self._begin(token, seconds)
        await watch.armed.wait()
        node = self._reconciler.config.node.name
        return LiveWatch(node=node, token=token.hex(), seconds=watch.left_s)

    def _begin(self, token: bytes, seconds: float) -> _Watch:
        now_s, last = time.monotonic(), self._watch
        if last and not last.ended.is_set():
            raise Refused(
                f"another live trace is under way, for {last.left_s:.1f} s at most: try again then"
            )
        if last and now_s - last.began_s < LEAST_PAUSE_S:
            raise TooSoon(f"the last live trace began less than {LEAST_PAUSE_S:g} s ago: try again")
        self._watch = _Watch(token, now_s, now_s + seconds)
        self._asked.set()
        return self._watch

    async def report(self, token: bytes) -> LiveReport:
        """Tell how the packet went, once it was seen or the time is over. Raises Refused."""
        watch = self._watch
        if watch is None or watch.token != token:
            raise Refused(f"token {token.hex()}: is not looked for, or another one has been since")
        await watch.ended.wait()
        node = self._reconciler.config.node.name
        return LiveReport(node=node, token=token.hex(), packet=watch.packet)

    async def _try(self, marks: Marks, watch: _Watch) -> None:
        """Look; whatever goes wrong is no reason for the node to end."""
        try:
            await self._look(marks, watch)
        except Exception:
            log.get().exception("live_trace_crashed")

    async def _look(self, marks: Marks, watch: _Watch) -> None:
        try:
            marks.arm(watch.token, int(watch.until_s * 1000))
            watch.armed.set()
            if found := await _find(marks, watch):
                watch.packet = await self._packet(found)
        finally:
            marks.disarm()
            watch.armed.set()
            watch.ended.set()

    async def _packet(self, found: Found) -> LivePacket:
        parts, state = self._parts, self._reconciler.state
        seats = await in_thread(parts.tables_thread, parts.tables.seats)
        pool, backend, address = _backend(seats, found) or ("", "", None)
        age_s = time.monotonic() - found.at_ms / 1000
        forwarded = found.reason == "none"
        return LivePacket(
            worker=found.worker,
            cpu=parts.crew.slots[found.worker].cpu,
            generation=found.generation,
            seen_at=datetime.fromtimestamp(time.time() - age_s, UTC),
            received_on=_interface(parts.ports.receivers, found.rx),
            sent_on=_interface(parts.ports.transmitters, found.tx) if forwarded else "",
            outcome=outcome(found.reason),
            reason="" if forwarded else found.reason,
            chosen_by=_chosen_by(found),
            service=_service(seats, found, state.forwarding.services if state else ()),
            pool=pool,
            backend=backend,
            address=address,
        )


async def _find(marks: Marks, watch: _Watch) -> Found | None:
    """Look until there is something, or the time is over; once more after that."""
    while watch.left_s:
        if found := marks.find(watch.token):
            return found
        await asyncio.sleep(LOOK_S)
    return marks.find(watch.token)


def _backend(seats: Seats, found: Found) -> BackendKey | None:
    """Return pool, name and address; None: there is none, or it is gone since."""
    if found.backend is None:
        return None
    return seats.backends.get((found.backend, found.incarnation & INCARNATION_MASK))


def _service(seats: Seats, found: Found, services: Sequence[ServiceState]) -> str:
    key = None if found.service is None else seats.services.get(found.service)
    return next((service.name for service in services if service_key(service) == key), "")


def _chosen_by(found: Found) -> Literal["flow_table", "maglev_table", "nobody"]:
    if found.backend is None:
        return "nobody"
    return "flow_table" if found.known else "maglev_table"


def _interface(rings: Sequence[Receiver] | Sequence[Transmitter], index: int | None) -> str:
    return next((ring.link.name for ring in rings if ring.attachment.index == index), "")
