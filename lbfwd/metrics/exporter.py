"""Reads a running node and writes it down for Prometheus; nothing of it blocks the event loop."""

import asyncio
from itertools import chain

from prometheus_client import ProcessCollector

from lbfwd import __version__
from lbfwd.health.judge import scale
from lbfwd.metrics import control, fleet, node, text, traffic
from lbfwd.metrics.reading import Reading
from lbfwd.metrics.tally import ReloadTally
from lbfwd.supervisor.blocking import in_thread
from lbfwd.supervisor.observe import Observer
from lbfwd.supervisor.reconcile import Parts, Reconciler


class Exporter:
    """Makes scrapes of one node, one at a time."""

    def __init__(self, reconciler: Reconciler, parts: Parts, observer: Observer) -> None:
        """Use what a running node has."""
        self.reloads = ReloadTally()
        self._reconciler = reconciler
        self._parts = parts
        self._observer = observer
        self._lock = asyncio.Lock()

    async def scrape(self) -> list[bytes]:
        """Read everything and write it down in pieces, in the format of ``text.CONTENT_TYPE``."""
        async with self._lock:
            return await in_thread(None, render, await self._read())

    async def _read(self) -> Reading:
        parts, reconciler, observer = self._parts, self._reconciler, self._observer
        forwarding = reconciler.state.forwarding if reconciler.state else None
        return Reading(
            version=__version__,
            generation=reconciler.generation,
            forwarding=forwarding,
            standings=parts.watch.standings,
            scales={pool.name: scale(pool) for pool in reconciler.config.pools},
            fingerprints=await observer.fingerprints(forwarding) if forwarding else {},
            configuration=await observer.configuration(),
            shared=observer.shared(),
            registrations=observer.registrations(),
            counts=await observer.counts(),
            flows=await observer.census(),
            flows_capacity=reconciler.config.workers.flows,
            workers=observer.workers(),
            interfaces=await observer.interfaces(),
            vips=observer.vips(),
            peers=observer.peers(),
            probes=parts.watch.probes.by_pool(),
            tunnel=observer.tunnel(),
            reloads=self.reloads,
        )


def render(reading: Reading) -> list[bytes]:
    """Write a reading down, and what there is of the supervisor's own process. Blocks."""
    groups = (group.families(reading) for group in (node, traffic, control, fleet))
    process = ProcessCollector(registry=None).collect()
    return text.write(chain(chain.from_iterable(groups), process))
