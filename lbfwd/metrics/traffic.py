"""Families about traffic: services, backends, drops, what happens on the way. Pure."""

from collections.abc import Iterator

from prometheus_client.core import Metric

from lbfwd.forwarding import Member, PoolState, ServiceState
from lbfwd.health.standing import Condition
from lbfwd.metrics.family import counter, gauge, info
from lbfwd.metrics.reading import Reading

UP: frozenset[Condition] = frozenset({"up", "starting", "drained", "paused"})


def families(reading: Reading) -> Iterator[Metric]:
    """Return all of them; without a forwarding state there are no services or backends."""
    counts = reading.counts
    yield counter(
        "lbfwd_dropped_packets",
        "Packets that were taken from a ring and not forwarded, by reason (docs/drop-reasons.md).",
        (({"reason": reason}, count) for reason, count in counts.drops.items()),
    )
    yield counter(
        "lbfwd_events",
        "What happened on packets' way, beside where they ended; flow_new counts new flows.",
        (({"event": event}, count) for event, count in counts.events.items()),
    )
    if reading.forwarding is not None:
        yield from _services(reading, reading.forwarding.services)
        yield from _backends(reading, reading.forwarding.pools)


def _services(reading: Reading, services: tuple[ServiceState, ...]) -> Iterator[Metric]:
    counts, flows = reading.counts, reading.flows.by_service
    yield counter(
        "lbfwd_service_packets",
        "Packets that were forwarded for a service: the kernel has taken them.",
        (({"service": name}, packets) for name, packets, _, _ in counts.services()),
    )
    yield counter(
        "lbfwd_service_bytes",
        "Bytes of these packets as they came, from the IP header on, before encapsulation.",
        (({"service": name}, size) for name, _, size, _ in counts.services()),
    )
    yield counter(
        "lbfwd_service_new_flows",
        "Flows of a service that began here: no worker had them in its table.",
        (({"service": name}, new) for name, _, _, new in counts.services()),
    )
    yield gauge(
        "lbfwd_service_flows",
        "Live flows of a service in the flow tables.",
        (({"service": s.name}, flows.get((s.vip, s.protocol, s.port), 0)) for s in services),
    )
    yield info("lbfwd_service", "A service: VIP, protocol, port, pool.", map(_service, services))
    yield info(
        "lbfwd_service_fingerprint",
        "Digest of what decides forwarding: equal on all nodes that forward the service alike.",
        ({"service": s.name, "fingerprint": reading.fingerprints[s.name]} for s in services),
    )


def _service(service: ServiceState) -> dict[str, str]:
    return {
        "service": service.name,
        "vip": str(service.vip),
        "protocol": service.protocol,
        "port": str(service.port) if service.port else "any",
        "pool": service.pool,
        "affinity": service.affinity,
    }


def _backends(reading: Reading, pools: tuple[PoolState, ...]) -> Iterator[Metric]:
    yield from _backends_traffic(reading, pools)
    yield gauge(
        "lbfwd_backend_weight",
        "Weight in force in the pool's Maglev table; 0: no new flows.",
        (
            (label, member.effective_weight / reading.scales.get(pool, 1))
            for label, pool, member in _members(pools)
        ),
    )
    yield gauge(
        "lbfwd_backend_up",
        "1: a backend's checks pass and it has a next hop; 0: not, or it is disabled.",
        (
            (label, float(_condition(reading, pool, member) in UP))
            for label, pool, member in _members(pools)
        ),
    )
    yield gauge(
        "lbfwd_backend_condition",
        "1 for the condition that a backend is in: up, down, checking, failed_open, starting, "
        "drained, disabled, joining, paused or gone; the others have no sample.",
        (
            (label | {"condition": _condition(reading, pool, member)}, 1.0)
            for label, pool, member in _members(pools)
        ),
    )


def _backends_traffic(reading: Reading, pools: tuple[PoolState, ...]) -> Iterator[Metric]:
    counts, flows = reading.counts, reading.flows.by_backend
    yield counter(
        "lbfwd_backend_packets",
        "Packets that were forwarded to a backend: the kernel has taken them.",
        (
            ({"pool": pool, "backend": name}, packets)
            for pool, name, packets, _, _ in counts.backends()
        ),
    )
    yield counter(
        "lbfwd_backend_bytes",
        "Bytes of these packets as they came, from the IP header on, before encapsulation.",
        (({"pool": pool, "backend": name}, size) for pool, name, _, size, _ in counts.backends()),
    )
    yield counter(
        "lbfwd_backend_new_flows",
        "Flows that began here and were given to a backend.",
        (({"pool": pool, "backend": name}, new) for pool, name, _, _, new in counts.backends()),
    )
    yield gauge(
        "lbfwd_backend_flows",
        "Live flows at a backend in the flow tables.",
        (
            (label, flows.get((pool, member.name, member.address), 0) if flows else 0)
            for label, pool, member in _members(pools)
        ),
    )


def _members(pools: tuple[PoolState, ...]) -> Iterator[tuple[dict[str, str], str, Member]]:
    return (
        ({"pool": pool.name, "backend": member.name}, pool.name, member)
        for pool in pools
        for member in pool.members
    )


def _condition(reading: Reading, pool: str, member: Member) -> Condition:
    standing = reading.standings.get((pool, member.name))
    return standing.condition if standing else "checking"
