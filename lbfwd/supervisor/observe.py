"""Gathers what ``status`` tells."""

import asyncio
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache

from lbfwd import __version__, maglev
from lbfwd.config import Config
from lbfwd.forwarding import Forwarding, PoolState, ServiceState, fingerprints
from lbfwd.net.resolve import Resolution
from lbfwd.supervisor.blocking import in_thread
from lbfwd.supervisor.devices import TxDrops, read_tx_drops
from lbfwd.supervisor.ports import Ports
from lbfwd.supervisor.reconcile import Parts, Reconciler, View
from lbfwd.supervisor.state import UNKNOWN, State
from lbfwd.supervisor.status import (
    BackendStatus,
    HopStatus,
    InterfaceStatus,
    PoolStatus,
    RingStatus,
    ServiceStatus,
    Status,
    WorkerStatus,
)
from lbfwd.supervisor.workers import Slot
from lbfwd.tables import Count, Tables, Totals

NOTHING = Count(packets=0, bytes=0)


class Observer:
    """Reads counters, rings and interfaces of a running node."""

    def __init__(self, config_file: str, reconciler: Reconciler, parts: Parts) -> None:
        """Begin the node's uptime."""
        self._config_file = config_file
        self._started = datetime.now(UTC)
        self._reconciler = reconciler
        self._parts = parts
        self._fingerprinted: Forwarding | None = None
        self._fingerprints: dict[str, str] = {}

    async def observe(self) -> Status:
        """Return everything as it is now."""
        parts, reconciler = self._parts, self._reconciler
        parts.ports.count()
        config, state, view = reconciler.config, reconciler.state, reconciler.view
        totals = await in_thread(parts.tables_thread, parts.tables.totals)
        drops = await in_thread(None, read_tx_drops)
        services = await in_thread(None, self._services, state, totals) if state else ()
        pools = await in_thread(None, _pools, state, view, totals) if state else ()
        return Status(
            version=__version__,
            node=config.node.name,
            pid=os.getpid(),
            config_file=self._config_file,
            started=self._started,
            uptime_s=(datetime.now(UTC) - self._started).total_seconds(),
            generation=reconciler.generation,
            workers=tuple(_worker(slot, parts.tables, parts.ports) for slot in parts.crew.slots),
            interfaces=tuple(_interfaces(config, view, parts.ports, drops)),
            services=services,
            pools=pools,
            drops=totals.drops,
            events=totals.events,
        )

    def _services(self, state: State, totals: Totals) -> tuple[ServiceStatus, ...]:
        """Blocks: fingerprints are digests over whole pools, so they are made once a generation."""
        forwarding = state.forwarding
        if self._fingerprinted is not forwarding:
            self._fingerprints, self._fingerprinted = fingerprints(forwarding), forwarding
        return tuple(
            _service(service, self._fingerprints[service.name], totals)
            for service in forwarding.services
        )


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


def _service(service: ServiceState, digest: str, totals: Totals) -> ServiceStatus:
    count = totals.services.get(service.name, NOTHING)
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
    )


def _pools(state: State, view: View, totals: Totals) -> tuple[PoolStatus, ...]:
    """Blocks: counting a table's slots takes some 10 ms for 65,537 of them."""
    return tuple(
        PoolStatus(
            name=pool.name,
            table_size=pool.table_size,
            backends=_backends(pool, state, view, totals),
        )
        for pool in state.forwarding.pools
    )


def _backends(
    pool: PoolState, state: State, view: View, totals: Totals
) -> tuple[BackendStatus, ...]:
    weights = tuple(member.effective_weight for member in pool.members)
    slots = _shares(tuple(member.name for member in pool.members), weights, pool.table_size)
    backends = []
    for member, won in zip(pool.members, slots, strict=True):
        key = (pool.name, member.name)
        resolution = view.resolutions.get(member.address, UNKNOWN)
        count = totals.backends.get(key, NOTHING)
        backends.append(
            BackendStatus(
                name=member.name,
                address=member.address,
                weight=member.weight,
                usable=key in state.usable,
                reason=state.unusable.get(key, resolution.reason),
                slots=won,
                hops=_hops(resolution),
                packets=count.packets,
                bytes=count.bytes,
            )
        )
    return tuple(backends)


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
