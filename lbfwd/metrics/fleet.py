"""Families that are compared between the nodes of a fleet. Pure."""

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import Metric

from lbfwd.metrics.family import gauge
from lbfwd.metrics.reading import Reading
from lbfwd.supervisor.status import SharedStatus

_DIGITS = 12  # 48 bits: a sample is a double, which holds 53


def families(reading: Reading) -> Iterator[Metric]:
    """Return all of them; without etcd there is no shared configuration."""
    yield gauge(
        "lbfwd_service_fingerprint",
        "First 48 bits of the service's fingerprint as a number, to be compared between nodes.",
        (({"service": name}, _number(it)) for name, it in reading.fingerprints.items()),
    )
    yield gauge(
        "lbfwd_configuration_digest",
        "First 48 bits of the digest of pools, services and flows, to be compared between nodes.",
        [({}, _number(reading.configuration))],
    )
    yield gauge(
        "lbfwd_peer_live",
        "1: the node is given the fragments that are its; 0: not, they stay with others.",
        (({"peer": peer.name}, float(peer.live)) for peer in reading.peers),
    )
    states = Counter((pool, found.state) for (pool, _), found in reading.registrations.items())
    yield gauge(
        "lbfwd_registrations",
        "Backends that registered themselves, by pool and state: joining, active, paused, gone or "
        "refused.",
        (({"pool": pool, "state": state}, n) for (pool, state), n in sorted(states.items())),
    )
    if reading.shared is not None:
        yield from _shared(reading.shared)


def _shared(shared: SharedStatus) -> Iterator[Metric]:
    yield gauge(
        "lbfwd_etcd_reachable",
        "1: etcd answered the last time; 0: the node goes on with what it has.",
        [({}, float(not shared.etcd_problem))],
    )
    yield gauge(
        "lbfwd_shared_configuration_revision",
        "etcd's revision of the shared configuration in force; 0: none.",
        [({}, shared.revision or 0)],
    )
    yield gauge(
        "lbfwd_shared_configuration_accepted",
        "1: what etcd said last is in force; 0: it was refused, or undone here.",
        [({}, float(shared.revision == shared.seen and not shared.problems))],
    )


def _number(digits: str) -> float:
    return float(int(digits[:_DIGITS], 16))
