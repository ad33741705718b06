"""All checks of a role, in order."""

from collections.abc import Callable, Iterator

from lbfwd.doctor import backend, daemon, host, interfaces, mtu, paths, tunnel
from lbfwd.doctor.facts import BackendFacts, NodeFacts
from lbfwd.doctor.finding import Finding

NODE: tuple[Callable[[NodeFacts], Iterator[Finding]], ...] = (
    daemon.process,
    daemon.configuration,
    daemon.secret,
    paths.addresses,
    paths.guard,
    paths.next_hops,
    paths.health,
    paths.detection,
    mtu.mtu,
    paths.answers,
    tunnel.tunnel,
    interfaces.rings,
    interfaces.hardware_drops,
    interfaces.offloads,
    interfaces.queues,
    interfaces.interrupts,
    daemon.cores,
    daemon.limits,
)
BACKEND: tuple[Callable[[BackendFacts], Iterator[Finding]], ...] = (
    backend.tunnel,
    backend.vips,
    backend.servers,
    backend.reverse_path,
    backend.arp,
    backend.filtering,
    backend.nodes,
    backend.mss,
    backend.losses,
)


def examine_node(facts: NodeFacts) -> tuple[Finding, ...]:
    """Return what all checks of a node say."""
    return (*(found for check in NODE for found in check(facts)), *host.checks(facts.host))


def examine_backend(facts: BackendFacts) -> tuple[Finding, ...]:
    """Return what all checks of a backend say."""
    return (*(found for check in BACKEND for found in check(facts)), *host.checks(facts.host))
