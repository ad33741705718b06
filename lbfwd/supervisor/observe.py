"""Gathers what ``status`` tells."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from lbfwd import __version__, maglev
from lbfwd.config import Config, Pool
from lbfwd.fleet.peers import Readiness
from lbfwd.forwarding import Forwarding, Member, PoolState, ServiceState, fingerprints
from lbfwd.health.judge import scale
from lbfwd.health.standing import BackendKey, Standing
from lbfwd.health.verdict import Verdict
from lbfwd.net.resolve import Resolution
from lbfwd.supervisor.announce import Announcer
from lbfwd.supervisor.blocking import in_thread
from lbfwd.supervisor.census import Census, Flows
from lbfwd.supervisor.devices import read_tx_drops
from lbfwd.supervisor.machinery import interface_statuses, tunnel_status, worker_status
from lbfwd.supervisor.peers import roster
from lbfwd.supervisor.reconcile import Parts, Reconciler, View
from lbfwd.supervisor.shared import SharedConfig
from lbfwd.supervisor.state import UNKNOWN, State
from lbfwd.supervisor.status import (
    BackendStatus,
    HopStatus,
    InterfaceStatus,
    PeerStatus,
    PoolStatus,
    ProbeStatus,
    RegistrationStatus,
    ServiceStatus,
    Status,
    TunnelStatus,
    WorkerStatus,
)
from lbfwd.supervisor.summary import Summary, digest
from lbfwd.tables import Count, Counts, FlowCount, FlowKey, Totals

NOTHING = Count(packets=0, bytes=0, new_flows=0)
UNJUDGED = Standing("checking", 0, False, "", 0.0)


@dataclass(frozen=True)
class _Scene:
    """What pools and backends look like, seen at one moment."""

    config: Config
    state: State
    view: View
    totals: Totals
    flows: Flows
    standings: Mapping[BackendKey, Standing]
    verdicts: Mapping[BackendKey, Verdict]
    registrations: Mapping[BackendKey, RegistrationStatus]


class Observer:
    """Reads counters, rings and interfaces of a running node."""

    def __init__(
        self,
        config_file: Path,
        reconciler: Reconciler,
        parts: Parts,
        announcer: Announcer,
        shared: SharedConfig,
    ) -> None:
        """Begin the node's uptime."""
        self._config_file = str(config_file.absolute())
        self._started = datetime.now(UTC)
        self._reconciler = reconciler
        self._parts = parts
        self.vips = announcer.vips
        self._node_reason = announcer.node_reason
        self.shared = shared.report
        self.ready: datetime | None = None
        self._census = Census(parts)
        self._fingerprinted: tuple[Forwarding, Mapping[str, str]] | None = None
        self._digested: tuple[Config, str] | None = None

    async def observe(self) -> Status:
        """Return everything as it is now."""
        reconciler = self._reconciler
        config, state = reconciler.config, reconciler.state
        totals = await self._totals()
        services: tuple[ServiceStatus, ...] = ()
        pools: tuple[PoolStatus, ...] = ()
        if state:
            scene = await self._scene(state, totals)
            services = await in_thread(None, self._services, scene)
            pools = await in_thread(None, _pools, scene)
        return Status(
            version=__version__,
            node=config.node.name,
            pid=os.getpid(),
            config_file=self._config_file,
            started=self._started,
            uptime_s=(datetime.now(UTC) - self._started).total_seconds(),
            generation=reconciler.generation,
            workers=self.workers(),
            interfaces=await self.interfaces(),
            vips=self.vips(),
            peers=self.peers(),
            services=services,
            pools=pools,
            shared=self.shared(),
            tunnel=self.tunnel(),
            drops=totals.drops,
            events=totals.events,
        )

    async def summarise(self) -> Summary:
        """Return what nodes of a fleet compare."""
        reconciler = self._reconciler
        config, state = reconciler.config, reconciler.state
        generation, shared = reconciler.generation, self.shared()  # as of one moment
        return Summary(
            version=__version__,
            node=config.node.name,
            started=self._started,
            ready=self.ready,
            generation=generation,
            configuration=await self.configuration(),
            fingerprints=dict(await self.fingerprints(state.forwarding)) if state else {},
            shared=shared,
            nodes={node.name: node.api for node in config.fleet.nodes},
        )

    async def readiness(self) -> Readiness:
        """Return whether this node takes packets, and what other nodes must agree on with it."""
        reason = self._node_reason() if self.ready else "it starts"
        return Readiness(
            node=self._reconciler.config.node.name,
            ready=not reason,
            reason=reason,
            configuration=await self.configuration(),
            roster=roster(self._reconciler.config),
        )

    def peers(self) -> tuple[PeerStatus, ...]:
        """Return the nodes between which fragments are handed over."""
        return self._parts.peering.statuses(self._reconciler.config)

    async def configuration(self) -> str:
        """Return the digest of what nodes of a fleet have in common."""
        return await in_thread(None, self._digest_of, self._reconciler.base)

    async def counts(self) -> Counts:
        """Return the counters, read beside what the tables' thread does meanwhile."""
        tables = self._parts.tables
        tenants = await in_thread(self._parts.tables_thread, tables.tenants)
        return await in_thread(None, tables.counts, tenants)

    async def _totals(self) -> Totals:
        return await in_thread(None, (await self.counts()).totals)

    def workers(self) -> tuple[WorkerStatus, ...]:
        """Return the workers and their rings as they are now."""
        ports, tables = self._parts.ports, self._parts.tables
        ports.count()
        return tuple(worker_status(slot, tables, ports) for slot in self._parts.crew.slots)

    async def interfaces(self) -> tuple[InterfaceStatus, ...]:
        """Return the interfaces that packets come in or leave on."""
        drops = await in_thread(None, read_tx_drops)
        reconciler = self._reconciler
        return tuple(
            interface_statuses(reconciler.config, reconciler.view, self._parts.ports, drops)
        )

    def tunnel(self) -> TunnelStatus | None:
        """Return how probes through the tunnel fare; None: nothing is asked through it."""
        tunnel = self._parts.watch.tunnel
        return tunnel_status(tunnel) if tunnel.in_use else None

    async def backend(self, pool: str, name: str) -> BackendStatus | None:
        """Return one backend as it is now; None: there is no such."""
        state = self._reconciler.state
        if state is None:
            return None
        totals = await self._totals()
        found = await in_thread(None, _pools, await self._scene(state, totals), pool)
        return next((b for p in found for b in p.backends if b.name == name), None)

    async def fingerprint(self, service: str) -> str:
        """Return a service's fingerprint; empty: there is no such."""
        state = self._reconciler.state
        return (await self.fingerprints(state.forwarding)).get(service, "") if state else ""

    async def fingerprints(self, forwarding: Forwarding) -> Mapping[str, str]:
        """Return the fingerprints of a state's services."""
        return await in_thread(None, self._fingerprints_of, forwarding)

    async def census(self, since: float = 0.0) -> Flows:
        """Return the live flows; none before the first generation. Raises OSError.

        ``since``: as of then (time.monotonic) or later.
        """
        state = self._reconciler.state
        return await self._census.flows(state.forwarding.flow_times, since) if state else Flows()

    async def flows(self, since: float = 0.0) -> Mapping[FlowKey, FlowCount]:
        """Return the live flows by service and backend, as ``census`` does. Raises OSError."""
        return (await self.census(since)).by_both

    async def flows_of(self, key: BackendKey, since: float = 0.0) -> FlowCount:
        """Return the live flows of a backend, as ``flows`` does. Raises OSError."""
        found = (await self.flows(since)).items()
        counts = [count for (_service, backend), count in found if backend[:2] == key]
        return FlowCount(sum(c.live for c in counts), sum(c.closing for c in counts))

    def standing(self, key: BackendKey) -> Standing:
        """Return how it stands with a backend."""
        return self._parts.watch.standings.get(key, UNJUDGED)

    def registrations(self) -> Mapping[BackendKey, RegistrationStatus]:
        """Return the backends that registered."""
        registry = self._parts.registry
        return {
            key: RegistrationStatus(
                source=entry.source,
                state=registry.state(key),
                since=datetime.fromtimestamp(entry.since, UTC),
            )
            for key, entry in registry.entries.items()
        }

    async def _scene(self, state: State, totals: Totals) -> _Scene:
        reconciler, watch = self._reconciler, self._parts.watch
        flows = await self._census.flows(state.forwarding.flow_times)
        standings = watch.standings, watch.verdicts()
        scene = reconciler.config, state, reconciler.view, totals, flows, *standings
        return _Scene(*scene, self.registrations())

    def _services(self, scene: _Scene) -> tuple[ServiceStatus, ...]:
        digests = self._fingerprints_of(scene.state.forwarding)
        return tuple(
            _service(service, digests[service.name], scene)
            for service in scene.state.forwarding.services
        )

    def _digest_of(self, config: Config) -> str:
        known = self._digested
        if known is None or known[0] is not config:
            known = self._digested = (config, digest(config))
        return known[1]

    def _fingerprints_of(self, forwarding: Forwarding) -> Mapping[str, str]:
        """Blocks: they are digests over whole pools, so they are made once a generation."""
        known = self._fingerprinted  # read once: another thread may be at another generation
        if known is None or known[0] is not forwarding:
            known = self._fingerprinted = (forwarding, fingerprints(forwarding))
        return known[1]


def _service(service: ServiceState, digest: str, scene: _Scene) -> ServiceStatus:
    count = scene.totals.services.get(service.name, NOTHING)
    key = service.vip, service.protocol, service.port
    return ServiceStatus(
        name=service.name,
        vip=service.vip,
        protocol=service.protocol,
        port=service.port or None,
        pool=service.pool,
        affinity=service.affinity,
        fingerprint=digest,
        packets=count.packets,
        bytes=count.bytes,
        new_flows=count.new_flows,
        flows=scene.flows.by_service.get(key, 0),
    )


def _pools(scene: _Scene, only: str | None = None) -> tuple[PoolStatus, ...]:
    """Blocks: counting a table's slots takes some 10 ms for 65,537 of them."""
    configured = {pool.name: pool for pool in scene.config.pools}
    return tuple(
        PoolStatus(
            name=pool.name,
            table_size=pool.table_size,
            backends=_backends(pool, configured.get(pool.name), scene),
        )
        for pool in scene.state.forwarding.pools
        if only in (None, pool.name)
    )


def _backends(pool: PoolState, configured: Pool | None, scene: _Scene) -> tuple[BackendStatus, ...]:
    weights = tuple(member.effective_weight for member in pool.members)
    slots = _shares(tuple(member.name for member in pool.members), weights, pool.table_size)
    asked = {backend.name: backend.weight for backend in configured.backends} if configured else {}
    parts = scale(configured) if configured else 1
    return tuple(
        _backend(pool.name, member, asked.get(member.name, member.weight), won, parts, scene)
        for member, won in zip(pool.members, slots, strict=True)
    )


def _backend(  # noqa: PLR0913, PLR0917 - what a row is made of
    pool: str, member: Member, weight: int, slots: int, parts: int, scene: _Scene
) -> BackendStatus:
    key = (pool, member.name)
    resolution = scene.view.resolutions.get(member.address, UNKNOWN)
    count = scene.totals.backends.get(key, NOTHING)
    standing, verdict = scene.standings.get(key, UNJUDGED), scene.verdicts.get(key)
    probe = verdict and ProbeStatus(
        outcome=verdict.last.name, duration_ms=round(verdict.last.duration_s * 1000, 3)
    )
    return BackendStatus(
        name=member.name,
        address=member.address,
        weight=weight,
        registration=scene.registrations.get(key),
        condition=standing.condition,
        since=datetime.fromtimestamp(standing.since, UTC),
        weight_in_force=member.effective_weight / parts,
        health_reason=standing.reason or (verdict.reason if verdict else ""),
        probe=probe,
        usable=key in scene.state.usable,
        reason=scene.state.unusable.get(key, resolution.reason),
        slots=slots,
        hops=_hops(resolution),
        packets=count.packets,
        bytes=count.bytes,
        new_flows=count.new_flows,
        flows=scene.flows.by_backend.get((pool, member.name, member.address), 0),
    )


def _hops(resolution: Resolution) -> tuple[HopStatus, ...]:
    return tuple(
        HopStatus(
            interface=hop.link.name,
            gateway=hop.gateway,
            mac=hop.mac.hex(":"),
            source=hop.source,
            mtu=hop.mtu,
        )
        for hop in resolution.hops
    )


@lru_cache(maxsize=256)
def _shares(names: tuple[str, ...], weights: tuple[int, ...], size: int) -> tuple[int, ...]:
    if not any(weights):
        return (0,) * len(names)
    return maglev.shares(names, weights, size)
