"""Gathers what ``trace`` tells: runs the flow's next packet through the packet path, aside."""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from lbfwd.config import Config
from lbfwd.encap import read_outer
from lbfwd.explain import Explanation, explain
from lbfwd.flow import Flow, packet
from lbfwd.forwarding import ServiceState
from lbfwd.health.standing import BackendKey
from lbfwd.net.bpf_machine import Unknown, run
from lbfwd.net.fanout import fanout_program
from lbfwd.supervisor.blocking import in_thread
from lbfwd.supervisor.errors import SupervisorError
from lbfwd.supervisor.observe import Observer
from lbfwd.supervisor.reconcile import Parts, Reconciler
from lbfwd.supervisor.status import BackendStatus, HopStatus
from lbfwd.supervisor.trace import (
    Trace,
    TraceEntry,
    TraceHeader,
    TraceService,
    TraceTable,
    choice,
    ends,
    header,
    outcome,
)
from lbfwd.tables import Seats

ETHERNET_BYTES = 14


@dataclass(frozen=True)
class _Found:
    """What the packet path does with the packet, and who has which slot."""

    explanation: Explanation
    seats: Seats
    names: Mapping[tuple[int, int], BackendKey]
    """Backends by slot and incarnation."""
    tenants: Mapping[int | None, BackendKey]
    """Backends by slot."""


class Tracer:
    """Answers where flows go. Changes nothing."""

    def __init__(self, reconciler: Reconciler, parts: Parts, observer: Observer) -> None:
        """Use what a running node has."""
        self._reconciler = reconciler
        self._parts = parts
        self._observer = observer

    async def trace(self, flow: Flow) -> Trace:
        """Tell what would become of the flow's next packet. Raises SupervisorError or OSError."""
        config, state = self._reconciler.config, self._reconciler.state
        if state is None:
            raise SupervisorError("nothing is published yet: lbfwd starts")
        frame = packet(flow)
        worker = _slot(config, self._parts.crew.alive(), frame)
        found = await in_thread(self._parts.tables_thread, self._rehearse, frame, worker or 0)
        return await self._trace(flow, worker, found, state.forwarding.services)

    async def _trace(
        self,
        flow: Flow,
        worker: int | None,
        found: _Found,
        services: tuple[ServiceState, ...],
    ) -> Trace:
        out = found.explanation
        key = found.tenants.get(out.backend)
        backend = await self._observer.backend(*key) if key else None
        chosen = choice(out, worker, found.names, backend)
        outer = self._outer(out)
        service = await self._service(found, services)
        return Trace(
            node=self._reconciler.config.node.name,
            generation=out.generation,
            **ends(flow),
            worker=worker,
            outcome=outcome(out.reason),
            reason="" if out.reason == "none" else out.reason,
            because=chosen.because,
            chosen_by=chosen.by,
            service=service,
            table=_table(found) if service else None,
            entries=_entries(found),
            pool=key[0] if key else "",
            backend=backend,
            hop=_hop(backend, outer),
            outer=outer,
        )

    def _rehearse(self, frame: bytes, slot: int) -> _Found:
        """Blocks. Where tables are published, so that both answers are of one generation."""
        tables = self._parts.tables
        rings = [tx.attachment.index for tx in self._parts.ports.transmitters]
        now_ms = time.monotonic_ns() // 1_000_000
        found = explain(tables.files(), slot, rings, frame, now_ms)
        seats = tables.seats()
        names = {place: (pool, name) for place, (pool, name, _) in seats.backends.items()}
        return _Found(found, seats, names, {slot: key for (slot, _), key in names.items()})

    async def _service(
        self, found: _Found, services: tuple[ServiceState, ...]
    ) -> TraceService | None:
        slot = found.explanation.service
        key = None if slot is None else found.seats.services.get(slot)
        service = next((s for s in services if (s.vip, s.protocol, s.port) == key), None)
        if service is None:
            return None
        return TraceService(
            name=service.name,
            affinity=service.affinity,
            pool=service.pool,
            fingerprint=await self._observer.fingerprint(service.name),
        )

    def _outer(self, found: Explanation) -> TraceHeader | None:
        if found.reason != "none" or not found.sent:
            return None
        ring, frame = found.sent[0]
        links = {tx.attachment.index: tx.link.name for tx in self._parts.ports.transmitters}
        return header(read_outer(frame), links.get(ring, ""))


def _slot(config: Config, alive: Collection[int], frame: bytes) -> int | None:
    """Return the worker slot that the fanout program picks, where the packet alone decides."""
    program = fanout_program(config.workers.fanout, tuple(config.settings_by_cpu), alive)
    ethertype = int.from_bytes(frame[ETHERNET_BYTES - 2 : ETHERNET_BYTES], "big")
    try:
        return run(program, frame[ETHERNET_BYTES:], ethertype)
    except Unknown:
        return None


def _table(found: _Found) -> TraceTable:
    out = found.explanation
    named = found.tenants.get(out.table_backend)
    return TraceTable(
        key=out.key.hex(),
        hash=f"{out.hash:016x}",
        size=out.table_size,
        bucket=out.bucket,
        backend=named[1] if named else "",
    )


def _entries(found: _Found) -> tuple[TraceEntry, ...]:
    entries = []
    for seen in found.explanation.sightings:
        pool, backend = found.names.get((seen.backend, seen.incarnation), ("", ""))
        entries.append(
            TraceEntry(
                worker=seen.worker,
                pool=pool,
                backend=backend,
                state=seen.state,
                age_s=seen.age_s,
                bucket=seen.bucket,
                usable=seen.usable,
            )
        )
    return tuple(entries)


def _hop(backend: BackendStatus | None, outer: TraceHeader | None) -> HopStatus | None:
    """Return the next hop that the frame is sent to."""
    if backend is None or outer is None:
        return None
    hops = [hop for hop in backend.hops if hop.interface == outer.interface]
    return next((hop for hop in hops if hop.mac == outer.dst_mac), None)
