"""Gathers what ``status`` tells."""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from lbfwd import __version__, maglev
from lbfwd.config import Config, Pool
from lbfwd.forwarding import Forwarding, Member, PoolState, ServiceState, fingerprints
from lbfwd.health.judge import scale
from lbfwd.health.standing import BackendKey, Standing
from lbfwd.health.tunnel import Tunnel
from lbfwd.health.verdict import Verdict
from lbfwd.net.resolve import Resolution
from lbfwd.ring import ProbeCounters
from lbfwd.supervisor.blocking import in_thread
from lbfwd.supervisor.census import Census, Flows
from lbfwd.supervisor.devices import TxDrops, read_tx_drops
from lbfwd.supervisor.ports import Ports
from lbfwd.supervisor.reconcile import Parts, Reconciler, View
from lbfwd.supervisor.state import UNKNOWN, State
from lbfwd.supervisor.status import (
    BackendStatus,
    BlockedStatus,
    HoleStatus,
    HopStatus,
    InterfaceStatus,
    PoolStatus,
    ProbeStatus,
    RingStatus,
    ServiceStatus,
    Status,
    TunnelStatus,
    WorkerStatus,
)
from lbfwd.supervisor.workers import Slot
from lbfwd.tables import Count, Counts, FlowCount, FlowKey, Tables, Totals

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


class Observer:
    """Reads counters, rings and interfaces of a running node."""

    def __init__(self, config_file: str, reconciler: Reconciler, parts: Parts) -> None:
        """Begin the node's uptime."""
        self._config_file = config_file
        self._started = datetime.now(UTC)
        self._reconciler = reconciler
        self._parts = parts
        self._census = Census(parts)
        self._fingerprinted: tuple[Forwarding, Mapping[str, str]] | None = None

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
            services=services,
            pools=pools,
            tunnel=self.tunnel(),
            drops=totals.drops,
            events=totals.events,
        )

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
        return tuple(_worker(slot, tables, ports) for slot in self._parts.crew.slots)

    async def interfaces(self) -> tuple[InterfaceStatus, ...]:
        """Return the interfaces that packets come in or leave on."""
        drops = await in_thread(None, read_tx_drops)
        reconciler = self._reconciler
        return tuple(_interfaces(reconciler.config, reconciler.view, self._parts.ports, drops))

    def tunnel(self) -> TunnelStatus | None:
        """Return how probes through the tunnel fare; None: nothing is asked through it."""
        tunnel = self._parts.watch.tunnel
        return _tunnel(tunnel) if tunnel.in_use else None

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

    async def _scene(self, state: State, totals: Totals) -> _Scene:
        reconciler, watch = self._reconciler, self._parts.watch
        flows = await self._census.flows(state.forwarding.flow_times)
        standings = watch.standings, watch.verdicts()
        return _Scene(reconciler.config, state, reconciler.view, totals, flows, *standings)

    def _services(self, scene: _Scene) -> tuple[ServiceStatus, ...]:
        digests = self._fingerprints_of(scene.state.forwarding)
        return tuple(
            _service(service, digests[service.name], scene)
            for service in scene.state.forwarding.services
        )

    def _fingerprints_of(self, forwarding: Forwarding) -> Mapping[str, str]:
        """Blocks: they are digests over whole pools, so they are made once a generation."""
        known = self._fingerprinted  # read once: another thread may be at another generation
        if known is None or known[0] is not forwarding:
            known = self._fingerprinted = (forwarding, fingerprints(forwarding))
        return known[1]


def _worker(slot: Slot, tables: Tables, ports: Ports) -> WorkerStatus:
    view = tables.slot(slot.number)
    age_s = asyncio.get_running_loop().time() - slot.moved_at if slot.moved_at else 0.0
    rings = tuple(
        RingStatus(
            interface=rx.link.name,
            packets=rx.totals[slot.number].packets,
            drops=rx.totals[slot.number].drops,
            freezes=rx.totals[slot.number].freezes,
        )
        for rx in ports.receivers
    )
    return WorkerStatus(
        slot=slot.number,
        cpu=slot.cpu,
        pid=slot.pid,
        state=slot.state,
        restarts=slot.restarts,
        heartbeat_age_ms=round(age_s * 1000),
        seen=view.seen,
        bursts=view.bursts,
        waits=view.waits,
        frames=view.frames,
        sends=view.sends,
        rings=rings,
        settings=slot.settings,
    )


def _interfaces(
    config: Config, view: View, ports: Ports, drops: Mapping[int, TxDrops]
) -> list[InterfaceStatus]:
    receiving = config.node.interfaces
    sending = sorted({tx.link.name for tx in ports.transmitters} - set(receiving))
    return [
        _interface(name, name in receiving, view, ports, drops) for name in (*receiving, *sending)
    ]


def _interface(
    name: str, receives: bool, view: View, ports: Ports, drops: Mapping[int, TxDrops]
) -> InterfaceStatus:
    link = view.links.get(name)
    ifindex = link.ifindex if link else None
    dropped = drops.get(ifindex, TxDrops()) if ifindex else TxDrops()
    return InterfaceStatus(
        name=name,
        receives=receives,
        state=view.state_of(name),
        carrier=bool(link and link.carrier),
        ifindex=ifindex,
        mtu=link.mtu if link else None,
        admits_all=any(rx.admits_all for rx in ports.receivers if rx.link.name == name),
        tx_index=ports.tx_indexes().get(ifindex) if ifindex else None,
        device_tx_dropped=dropped.device,
        qdisc_tx_dropped=dropped.qdisc,
    )


def _tunnel(tunnel: Tunnel) -> TunnelStatus:
    count = tunnel.counters() or ProbeCounters(0, 0, 0, 0, 0)
    return TunnelStatus(
        trouble=tunnel.trouble,
        blocked=tuple(
            BlockedStatus(vip=f.vip, interface=f.interface, reason=f.reason, fix=f.fix)
            for f in tunnel.blocked
        ),
        mtu_holes=tuple(
            HoleStatus(backend=hole.backend, reason=hole.reason, fix=hole.fix)
            for hole in tunnel.mtu_holes.values()
        ),
        packets=count.packets,
        bytes=count.bytes,
        dropped={"stray": count.stray, "too_big": count.too_big, "unsent": count.unsent},
    )


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
