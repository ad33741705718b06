"""A node at one moment, as its metrics are made from it. Plain values."""

from collections.abc import Mapping
from dataclasses import dataclass

from lbfwd.forwarding import Forwarding
from lbfwd.health.standing import BackendKey as StandingKey
from lbfwd.health.standing import Standing
from lbfwd.metrics.tally import PoolProbes, ReloadTally
from lbfwd.supervisor.census import Flows
from lbfwd.supervisor.status import (
    InterfaceStatus,
    PeerStatus,
    RegistrationStatus,
    SharedStatus,
    TunnelStatus,
    VipStatus,
    WorkerStatus,
)
from lbfwd.tables import Counts


@dataclass(frozen=True)
class Reading:
    """What is in force and what was counted; ``forwarding`` None: nothing was published yet."""

    version: str
    generation: int
    forwarding: Forwarding | None
    standings: Mapping[StandingKey, Standing]
    scales: Mapping[str, int]
    """By pool: what weights in force are multiplied by (``judge.scale``)."""
    fingerprints: Mapping[str, str]
    configuration: str
    """Digest of what nodes of a fleet have in common."""
    shared: SharedStatus | None
    registrations: Mapping[StandingKey, RegistrationStatus]
    counts: Counts
    flows: Flows
    flows_capacity: int
    """Live flows that a worker can hold."""
    workers: tuple[WorkerStatus, ...]
    interfaces: tuple[InterfaceStatus, ...]
    vips: tuple[VipStatus, ...]
    peers: tuple[PeerStatus, ...]
    probes: Mapping[str, PoolProbes]
    tunnel: TunnelStatus | None
    reloads: ReloadTally
