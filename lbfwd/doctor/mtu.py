"""Check of the tunnels' MTU against what clients may send. Pure."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from lbfwd.backend.plan import ENCAPSULATION_BYTES, IPV6_LEAST_MTU
from lbfwd.doctor.facts import NodeFacts
from lbfwd.doctor.finding import Finding, broken, ok, warn
from lbfwd.supervisor.status import BackendStatus, HopStatus, PoolStatus, Status

_NAMES_SHOWN = 3
_IPV6 = 6


@dataclass(frozen=True)
class _Traffic:
    """What may come in for a pool. ``largest``: bytes; ``links``: MTU by interface."""

    largest: int
    links: dict[str, int]
    ipv6: bool
    datagrams: bool


def mtu(facts: NodeFacts) -> Iterator[Finding]:
    """Compare the tunnel to each backend with what clients may send."""
    if facts.status is None:
        return
    for pool in facts.status.pools:
        traffic = _traffic(facts.status, pool)
        alike: dict[Finding, list[str]] = defaultdict(list)
        for backend in pool.backends:
            for hop in backend.hops:
                for finding in _tunnel(backend, hop, traffic):
                    alike[finding].append(backend.name)
        if not alike:
            yield ok("mtu", f"pool {pool.name}: packets fit the tunnels, or TCP makes them fit")
        for finding, names in alike.items():
            yield replace(finding, what=f"pool {pool.name}, {_listed(names)}: {finding.what}")


def _traffic(status: Status, pool: PoolStatus) -> _Traffic:
    services = [service for service in status.services if service.pool == pool.name]
    return _Traffic(
        largest=max((i.mtu or 0 for i in status.interfaces if i.receives), default=0),
        links={interface.name: interface.mtu or 0 for interface in status.interfaces},
        ipv6=any(service.vip.version == _IPV6 for service in services),
        datagrams=any(service.protocol == "udp" for service in services),
    )


def _tunnel(backend: BackendStatus, hop: HopStatus, traffic: _Traffic) -> Iterator[Finding]:
    overhead = ENCAPSULATION_BYTES[backend.address.version]
    inner = hop.mtu - overhead
    what = f"tunnel MTU {inner} by {hop.interface}"
    enlarge = f"ip link set {hop.interface} mtu {traffic.largest + overhead}  # and all on the way"
    if traffic.ipv6 and inner < IPV6_LEAST_MTU:
        why = f"IPv6 needs {IPV6_LEAST_MTU} bytes (RFC 8200 section 5)"
        yield broken("mtu", what, why, enlarge)
    elif hop.mtu < traffic.links.get(hop.interface, 0):
        why = (
            f"the way has room for {hop.mtu} bytes, the interface for more: a path MTU was "
            "learned, or a route sets it"
        )
        yield warn("mtu", what, why, f"tracepath -n {backend.address}")
    elif traffic.datagrams and inner < traffic.largest:
        why = (
            f"UDP has no MSS: datagrams of up to {traffic.largest} bytes come in, and their "
            "senders have to follow ICMP"
        )
        yield warn("mtu", what, why, enlarge)


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMES_SHOWN
    shown = ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
    return f"{'backends' if len(names) > 1 else 'backend'} {shown}"
