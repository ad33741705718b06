"""What ``lbfwd status`` and the admin socket tell: frozen models, JSON by pydantic.

Packets and bytes are those of the clients' IP packets, before encapsulation. Counters count since
this supervisor was started; "forwarded" means that the kernel has taken the frame, so what device
and queue dropped afterwards stands beside it.
"""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from lbfwd.config import IPAddress, WorkerSettings
from lbfwd.fleet.registration import State
from lbfwd.health.standing import Condition

NOTHING_ANNOUNCED = "[announce] table = 0: nothing is announced"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RingStatus(_Model):
    """One RX ring, by the kernel's statistics (packet(7), PACKET_STATISTICS)."""

    interface: str
    packets: int
    """Packets that passed the filter, dropped ones included."""
    drops: int
    """Packets for which the ring had no room."""
    freezes: int


class WorkerStatus(_Model):
    """One worker slot."""

    slot: int
    cpu: int
    pid: int | None
    state: Literal["starting", "running", "abandoned"]
    restarts: int
    heartbeat_age_ms: int
    seen: int
    """Packets taken from RX rings; a super-frame counts by its segments."""
    bursts: int
    waits: int
    frames: int
    sends: int
    rings: tuple[RingStatus, ...]
    settings: WorkerSettings
    """In force: ``[workers]``, or what the worker has of its own."""


class InterfaceStatus(_Model):
    """One interface that packets come in or leave on."""

    name: str
    receives: bool
    state: Literal["up", "down", "unsuitable", "gone"]
    carrier: bool
    ifindex: int | None
    mtu: int | None
    admits_all: bool
    """The kernel could not hold the filter: workers look at every packet."""
    tx_index: int | None
    device_tx_dropped: int
    qdisc_tx_dropped: int


class ServiceStatus(_Model):
    """One service; ``port`` None: every port."""

    name: str
    vip: IPAddress
    protocol: str
    port: int | None
    pool: str
    affinity: str
    fingerprint: str
    """Equal on all nodes that forward this service alike."""
    packets: int
    bytes: int
    new_flows: int
    """Since it was configured; those that others in the tables hold are not among them."""
    flows: int
    """Live ones in the flow tables."""


class VipStatus(_Model):
    """One VIP: whether this node announces it; ``reason``: why not. docs/announce.md."""

    vip: IPAddress
    announced: bool
    reason: str


class PeerStatus(_Model):
    """A node of the fleet that takes part in handing fragments over; ``here``: this one."""

    name: str
    addresses: tuple[IPAddress, ...]
    here: bool
    live: bool
    """Whether it is given fragments."""
    reason: str
    """Why not, or what its last answer lacks."""
    since: datetime | None
    """When this became so; None: not known of oneself."""


class SharedStatus(BaseModel):
    """The shared part of the configuration, from etcd: docs/fleet.md.

    ``revision``: etcd's number of what is in force (None: nothing), ``digest``: of its text (empty:
    nothing, or an older lbfwd); ``seen``: the number of what it said last (None: it has nothing, or
    has it no longer).
    """

    model_config = ConfigDict(frozen=True, extra="ignore")  # another version may know more

    key: str
    revision: int | None
    digest: str = ""
    seen: int | None
    problems: tuple[str, ...]
    """Why what it said last is not in force."""
    etcd_problem: str
    """Why etcd was not reached the last time; empty: it was."""


class HopStatus(_Model):
    """One way to a backend; ``mtu``: the largest outer IP packet."""

    interface: str
    gateway: IPAddress
    mac: str
    source: IPAddress
    mtu: int


class ProbeStatus(_Model):
    """The last probe of a backend. ``outcome``: ``passed``, or what went wrong; docs/health.md."""

    outcome: str
    duration_ms: float


class RegistrationStatus(_Model):
    """How a backend came in by itself, and what became of that; docs/registration.md."""

    source: Literal["etcd", "https"]
    state: State
    since: datetime


class BackendStatus(_Model):
    """One backend of a pool."""

    name: str
    address: IPAddress
    weight: int
    """As configured, or as it registered."""
    registration: RegistrationStatus | None = None
    """None: it stands in the configuration."""
    condition: Condition
    """What probes, next hops and operators make of it."""
    since: datetime
    """When its condition became so."""
    weight_in_force: float
    """Part of ``weight`` during a slow start; 0: no new flows."""
    health_reason: str
    """Why its condition is so, or what its last probe complains of."""
    probe: ProbeStatus | None
    """Its last probe; None: it is not probed."""
    usable: bool
    reason: str
    """Why it is not usable, or which of its next hops are not."""
    slots: int
    """Slots that it has in the pool's Maglev table."""
    hops: tuple[HopStatus, ...]
    packets: int
    bytes: int
    new_flows: int
    """Since it was configured; those that others in the tables hold are not among them."""
    flows: int
    """Live ones in the flow tables, of all services."""


class PoolStatus(_Model):
    """One pool."""

    name: str
    table_size: int
    backends: tuple[BackendStatus, ...]


class BlockedStatus(_Model):
    """Why answers from a VIP do not come in by an interface, and the command that helps."""

    vip: IPAddress
    interface: str
    reason: str
    fix: str


class HoleStatus(_Model):
    """What gets lost in the tunnel to a backend, and the command that helps."""

    backend: IPAddress
    reason: str
    fix: str


class TunnelStatus(_Model):
    """Probes through the tunnel: docs/health-tunnel.md."""

    trouble: str
    """Why none can go through; empty: they can."""
    blocked: tuple[BlockedStatus, ...]
    mtu_holes: tuple[HoleStatus, ...]
    packets: int
    """Sent since the tunnel was opened, and ``bytes`` of them, before encapsulation."""
    bytes: int
    dropped: dict[str, int]
    """Not sent, by reason: ``stray`` (no probe's), ``too_big``, ``unsent`` (the kernel refused)."""


class Status(_Model):
    """The whole node."""

    version: str
    node: str
    pid: int
    config_file: str
    started: datetime
    uptime_s: float
    generation: int
    workers: tuple[WorkerStatus, ...]
    interfaces: tuple[InterfaceStatus, ...]
    vips: tuple[VipStatus, ...]
    peers: tuple[PeerStatus, ...] = ()
    """Empty: fragments stay on the node that they came to."""
    services: tuple[ServiceStatus, ...]
    pools: tuple[PoolStatus, ...]
    shared: SharedStatus | None
    """None: the configuration is the file's alone."""
    tunnel: TunnelStatus | None
    """None: nothing is asked through it."""
    drops: dict[str, int]
    """Packets by the reason for which they were not forwarded; every reason is there."""
    events: dict[str, int]
    """What happened on the way, beside where packets ended; every event is there."""
