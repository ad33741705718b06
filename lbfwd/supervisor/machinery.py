"""What ``status`` tells of workers, rings, interfaces and the probes' tunnel."""

import asyncio
from collections.abc import Mapping

from lbfwd.config import Config
from lbfwd.health.tunnel import Tunnel
from lbfwd.ring import ProbeCounters
from lbfwd.supervisor.devices import TxDrops
from lbfwd.supervisor.ports import Ports
from lbfwd.supervisor.reconcile import View
from lbfwd.supervisor.status import (
    BlockedStatus,
    HoleStatus,
    InterfaceStatus,
    RingStatus,
    TunnelStatus,
    WorkerStatus,
)
from lbfwd.supervisor.workers import Slot
from lbfwd.tables import Tables


def worker_status(slot: Slot, tables: Tables, ports: Ports) -> WorkerStatus:
    """Return a worker and its rings as they are now; on the event loop, whose clock it uses."""
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


def interface_statuses(
    config: Config, view: View, ports: Ports, drops: Mapping[int, TxDrops]
) -> list[InterfaceStatus]:
    """Return the interfaces that packets come in or leave on, the configured ones first."""
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


def tunnel_status(tunnel: Tunnel) -> TunnelStatus:
    """Return how probes through the tunnel fare."""
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
