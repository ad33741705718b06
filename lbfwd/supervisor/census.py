"""Live flows, read from the flow tables no more often than is cheap."""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from lbfwd.forwarding import FlowTimes
from lbfwd.snapshot import BackendKey, ServiceKey
from lbfwd.supervisor.blocking import in_thread
from lbfwd.supervisor.reconcile import Parts
from lbfwd.tables import FlowCount, FlowKey, Seats, Tables

LEAST_AGE_S = 0.5
SHARE = 10  # counting takes at most one part in so many of a core


@dataclass(frozen=True)
class Flows:
    """Live flows as of one moment.

    ``by_worker``: entries in use, by slot: a flow that went to another worker has two.
    """

    by_both: Mapping[FlowKey, FlowCount] = field(default_factory=dict)
    by_service: Mapping[ServiceKey, int] = field(default_factory=dict)
    by_backend: Mapping[BackendKey, int] = field(default_factory=dict)
    by_worker: tuple[int, ...] = ()


class Census:
    """Counts on demand; an answer may be half a second old, or ten times as old as it took."""

    def __init__(self, parts: Parts) -> None:
        """Count nothing yet."""
        self._parts = parts
        self._lock = asyncio.Lock()
        self._flows = Flows()
        self._began = self._due = 0.0

    async def flows(self, times: FlowTimes, since: float = 0.0) -> Flows:
        """Return the live flows. ``times``: how long an entry counts. Raises OSError.

        ``since``: not as of before then (time.monotonic), whatever it takes.
        """
        async with self._lock:
            began = time.monotonic()
            if began >= self._due or self._began < since:
                self._flows, self._began = await self._count(times), began
                ended = time.monotonic()
                self._due = ended + max(LEAST_AGE_S, SHARE * (ended - began))
            return self._flows

    async def _count(self, times: FlowTimes) -> Flows:
        tables, thread = self._parts.tables, self._parts.tables_thread
        seats = await in_thread(thread, tables.seats)
        return await in_thread(None, take, tables, seats, times)


def take(tables: Tables, seats: Seats, times: FlowTimes) -> Flows:
    """Count, and add the counts up by service and by backend. Blocks."""
    found = tables.live_flows(seats, times)
    services: Counter[ServiceKey] = Counter()
    backends: Counter[BackendKey] = Counter()
    for (service, backend), count in found.items():
        services[service] += count.live
        backends[backend] += count.live
    return Flows(found, services, backends, tables.flows_in_use(times))
