"""What happened between two status answers, a second. Pure."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from lbfwd.supervisor.status import BackendStatus, ServiceStatus, Status, WorkerStatus


@dataclass(frozen=True)
class Rate:
    """Of one service or backend, a second; packets and bits as the clients sent them.

    ``flows``: live ones.
    """

    packets: float
    bits: float
    new_flows: float
    flows: int


@dataclass(frozen=True)
class Load:
    """Of one worker, a second. ``busy``: the share of its rounds that did not end in a wait."""

    packets: float
    bursts: float
    waits: float
    busy: float
    ring_drops: float


@dataclass(frozen=True)
class Sample:
    """Rates over ``seconds``; 0 seconds: there are none yet."""

    seconds: float
    packets: float
    bits: float
    new_flows: float
    services: Mapping[str, Rate]
    backends: Mapping[tuple[str, str], Rate]
    workers: Mapping[int, Load]
    drops: Mapping[str, float]
    events: Mapping[str, float]

    def as_dict(self, after: Status) -> dict[str, object]:
        """Return it as JSON takes it, with how the backends stand by the later answer."""
        backends = [
            {
                "pool": pool.name,
                "backend": backend.name,
                **asdict(self.backends[pool.name, backend.name]),
                **backend.model_dump(mode="json", include={"condition", "since", "health_reason"}),
            }
            for pool in after.pools
            for backend in pool.backends
        ]
        about = {"node": after.node, "generation": after.generation}
        return about | asdict(self) | {"backends": backends}


def sample(before: Status, after: Status) -> Sample:
    """Compare two answers of one node. After a restart, and at first, all rates are 0."""
    same = before.pid == after.pid and before.started == after.started
    seconds = after.uptime_s - before.uptime_s if same else 0.0
    services_before = {service.name: service for service in before.services}
    services = {
        service.name: _rate(services_before.get(service.name), service, seconds)
        for service in after.services
    }
    backends_before = {(p.name, b.name): b for p in before.pools for b in p.backends}
    return Sample(
        seconds=seconds,
        packets=sum(rate.packets for rate in services.values()),
        bits=sum(rate.bits for rate in services.values()),
        new_flows=_each("flow_new", before.events, after.events, seconds),
        services=services,
        backends={
            (pool.name, backend.name): _rate(
                backends_before.get((pool.name, backend.name)), backend, seconds
            )
            for pool in after.pools
            for backend in pool.backends
        },
        workers={
            new.slot: _load(old, new, seconds)
            for old, new in zip(before.workers, after.workers, strict=False)
        },
        drops={name: _each(name, before.drops, after.drops, seconds) for name in after.drops},
        events={name: _each(name, before.events, after.events, seconds) for name in after.events},
    )


def _per_s(before: int, after: int, seconds: float) -> float:
    # A counter that went back has begun anew.
    return max(0, after - before) / seconds if seconds > 0 else 0.0


def _each(name: str, before: Mapping[str, int], after: Mapping[str, int], seconds: float) -> float:
    return _per_s(before.get(name, 0), after.get(name, 0), seconds)


def _rate(
    before: ServiceStatus | BackendStatus | None,
    after: ServiceStatus | BackendStatus,
    seconds: float,
) -> Rate:
    packets, size, new = (before.packets, before.bytes, before.new_flows) if before else (0, 0, 0)
    return Rate(
        packets=_per_s(packets, after.packets, seconds),
        bits=8 * _per_s(size, after.bytes, seconds),
        new_flows=_per_s(new, after.new_flows, seconds),
        flows=after.flows,
    )


def _load(before: WorkerStatus, after: WorkerStatus, seconds: float) -> Load:
    bursts = _per_s(before.bursts, after.bursts, seconds)
    waits = _per_s(before.waits, after.waits, seconds)
    return Load(
        packets=_per_s(before.seen, after.seen, seconds),
        bursts=bursts,
        waits=waits,
        busy=bursts / (bursts + waits) if bursts else 0.0,
        ring_drops=_per_s(
            sum(ring.drops for ring in before.rings),
            sum(ring.drops for ring in after.rings),
            seconds,
        ),
    )
