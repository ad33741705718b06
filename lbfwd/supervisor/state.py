"""From configuration and network to the forwarding state. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lbfwd.config import Backend, Config, IPAddress, Node, Pool, Service, entropy_bits
from lbfwd.forwarding import FlowTimes, Forwarding, Member, PathSpec, PoolState, ServiceState
from lbfwd.net.resolve import NextHop, Resolution

ANY_PORT = 0
MOST_PATHS = 64  # of one backend; about: every hop of its route has one
UNKNOWN = Resolution(hops=(), reason="not looked up yet")

BackendKey = tuple[str, str]
"""Name of the pool, name of the backend."""


@dataclass(frozen=True)
class State:
    """The forwarding state, which backends can be sent to, and why the others cannot."""

    forwarding: Forwarding
    usable: frozenset[BackendKey]
    unusable: Mapping[BackendKey, str]


def derive(
    config: Config, resolutions: Mapping[IPAddress, Resolution], tx: Mapping[int, int]
) -> State:
    """Compute what the workers are to do.

    ``tx``: index of the TX ring by interface index. A backend without a next hop that has a TX
    ring gets weight 0 and no paths, so that it gets no traffic, and its reason is kept.
    """
    pools = tuple(_pool(pool, config.node, resolutions, tx) for pool in config.pools)
    reasons = {
        (pool.name, backend.name): reason
        for pool in config.pools
        for backend in pool.backends
        if (reason := _reason(resolutions.get(backend.address, UNKNOWN), tx))
    }
    usable = frozenset((p.name, m.name) for p in pools for m in p.members if m.paths)
    forwarding = Forwarding(
        hash_key=config.hash_key.raw,
        services=tuple(_service(service) for service in config.services),
        pools=pools,
        flow_times=FlowTimes(**config.flows.model_dump()),
        echo=config.node.echo,
    )
    return State(forwarding, usable, reasons)


def _service(service: Service) -> ServiceState:
    return ServiceState(
        name=service.name,
        vip=service.vip,
        protocol=service.protocol,
        port=ANY_PORT if service.port is None else service.port,
        affinity=service.affinity,
        pool=service.pool,
        empty=service.empty,
    )


def _pool(
    pool: Pool, node: Node, resolutions: Mapping[IPAddress, Resolution], tx: Mapping[int, int]
) -> PoolState:
    members = tuple(
        _member(backend, node, resolutions.get(backend.address, UNKNOWN), tx)
        for backend in pool.backends
    )
    return PoolState(name=pool.name, table_size=pool.table_size, members=members)


def _member(backend: Backend, node: Node, resolution: Resolution, tx: Mapping[int, int]) -> Member:
    paths = tuple(
        _path(backend.address, hop, node, tx[hop.link.ifindex])
        for hop in hops_by_weight(_sendable(resolution, tx))
    )
    return Member(backend.name, backend.address, backend.weight, paths)


def _path(destination: IPAddress, hop: NextHop, node: Node, tx: int) -> PathSpec:
    prefixes = {prefix.version: prefix for prefix in node.source_entropy}
    prefix = prefixes.get(destination.version)
    return PathSpec(
        src_mac=hop.link.mac,
        dst_mac=hop.mac,
        source=prefix.network_address if prefix else hop.source,
        destination=destination,
        tx=tx,
        mtu=hop.mtu,
        entropy_bits=entropy_bits(prefix) if prefix else 0,
        may_fragment=not node.outer_df,
    )


def hops_by_weight(hops: Sequence[NextHop]) -> list[NextHop]:
    """Return each hop as often as its share of a multipath route asks for, MOST_PATHS in all.

    A flow's path is picked evenly among a backend's paths, so a share is a number of paths.
    """
    divisor = math.gcd(*(hop.weight for hop in hops))
    total = sum(hop.weight for hop in hops) // divisor if hops else 0
    scale = max(divisor, divisor * total / MOST_PATHS)
    return [hop for hop in hops for _ in range(max(1, round(hop.weight / scale)))]


def _sendable(resolution: Resolution, tx: Mapping[int, int]) -> tuple[NextHop, ...]:
    return tuple(hop for hop in resolution.hops if hop.link.ifindex in tx)


def _reason(resolution: Resolution, tx: Mapping[int, int]) -> str:
    """Return why nothing can be sent to a backend; empty when something can."""
    if _sendable(resolution, tx):
        return ""
    if not resolution.hops:
        return resolution.reason
    names = ", ".join(sorted({hop.link.name for hop in resolution.hops}))
    return f"no TX ring on {names}"
