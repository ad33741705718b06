"""From configuration and network to the forwarding state. Pure."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from typing import cast

from lbfwd.config import Backend, Config, IPAddress, Node, Pool, Service, entropy_bits
from lbfwd.forwarding import (
    FlowTimes,
    Forwarding,
    Member,
    PathSpec,
    Peers,
    PoolState,
    ServiceState,
)
from lbfwd.health.standing import BackendKey, Standing, Standings, of_pool
from lbfwd.net.resolve import NextHop, Resolution

ANY_PORT = 0
MOST_PATHS = 64  # of one backend; about: every hop of its route has one
UNKNOWN = Resolution(hops=(), reason="not looked up yet")
AS_CONFIGURED: Mapping[BackendKey, Standing] = {}


class Serving(Set[BackendKey]):
    """The backends that packets can be sent to."""

    def __init__(self, pools: Sequence[PoolState]) -> None:
        """Look at members when asked: there may be very many."""
        self._all = pools

    @cached_property
    def _pools(self) -> dict[str, PoolState]:
        return {pool.name: pool for pool in self._all}

    def __contains__(self, key: object) -> bool:
        """Whether a backend is one of them."""
        pool, name = cast(BackendKey, key)
        return pool in self._pools and name in self._pools[pool].serving

    def __iter__(self) -> Iterator[BackendKey]:
        """Go through all of them."""
        return ((p.name, name) for p in self._pools.values() for name in p.serving)

    def __len__(self) -> int:
        """Count them."""
        return sum(len(pool.serving) for pool in self._pools.values())


Routes = Mapping[IPAddress, tuple[PathSpec, ...]]


@dataclass(frozen=True)
class Basis:
    """What a state was derived from: the next one derives only what is not the same any more."""

    config: Config
    resolutions: Mapping[IPAddress, Resolution]
    tx: Mapping[int, int]
    standings: Mapping[BackendKey, Standing]
    routes: Routes


@dataclass(frozen=True)
class State:
    """The forwarding state, which backends can be sent to, and why the others cannot."""

    forwarding: Forwarding
    usable: Set[BackendKey]
    unusable: Mapping[BackendKey, str]
    basis: Basis = field(repr=False, compare=False)


def derive(  # noqa: PLR0913, PLR0917 - what a state is made of
    config: Config,
    resolutions: Mapping[IPAddress, Resolution],
    tx: Mapping[int, int],
    standings: Mapping[BackendKey, Standing] = AS_CONFIGURED,
    before: State | None = None,
    peers: Peers | None = None,
) -> State:
    """Compute what the workers are to do.

    ``tx``: index of the TX ring by interface index. A backend without a next hop that has a TX
    ring gets no paths, so that it gets no traffic, and its reason is kept. One that has a standing
    has its weight, and no paths when it may not serve: its live flows go elsewhere at once.
    ``before``: the last state. What has not changed since is the same object again, and that is
    all the difference it makes. ``peers``: see ``Forwarding``.
    """
    routes = _routes(config, resolutions, tx, before.basis if before else None)
    basis = Basis(config, resolutions, tx, standings, routes)
    pools = _pools(basis, before)
    forwarding = Forwarding(
        hash_key=config.hash_key.raw,
        services=_services(config, before),
        pools=pools,
        flow_times=FlowTimes(**config.flows.model_dump()),
        echo=config.node.echo,
        peers=peers,
    )
    known = before is not None and _same_reach(basis, before.basis)
    unusable = before.unusable if before and known else unreachable(config, resolutions, tx)
    return State(forwarding, Serving(pools), unusable, basis)


def _same_reach(new: Basis, old: Basis) -> bool:
    """Whether backends and what is known of the ways to them are the same."""
    return (
        new.config.pools is old.config.pools
        and new.config.node is old.config.node
        and new.resolutions is old.resolutions
        and new.tx == old.tx
    )


def unreachable(
    config: Config, resolutions: Mapping[IPAddress, Resolution], tx: Mapping[int, int]
) -> dict[BackendKey, str]:
    """Return the backends that nothing can be sent to, and why; arguments as of ``derive``."""
    lost = {
        address: reason
        for address in config.addresses
        if (reason := _reason(resolutions.get(address, UNKNOWN), tx))
    }
    if not lost:
        return {}
    return {
        (pool.name, backend.name): lost[backend.address]
        for pool in config.pools
        for backend in pool.backends
        if backend.address in lost
    }


def _services(config: Config, before: State | None) -> tuple[ServiceState, ...]:
    services = config.services
    if before and before.basis.config.services is services:
        return before.forwarding.services
    states = tuple(map(_service, services))
    same = before is not None and before.forwarding.services == states
    return before.forwarding.services if before and same else states


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


def _pools(basis: Basis, before: State | None) -> tuple[PoolState, ...]:
    if before is None:
        return tuple(_pool(pool, basis) for pool in basis.config.pools)
    old = before.basis
    restood = _restood(old.standings, basis.standings)
    moved = {
        address
        for address, paths in (() if basis.routes is old.routes else basis.routes.items())
        if old.routes.get(address) is not paths
    }
    pairs = zip(old.config.pools, before.forwarding.pools, strict=True)
    if basis.config.pools is old.config.pools and not moved:
        return tuple(
            _derived(pool, basis, _Earlier(pool, state, restood[pool.name]))
            if pool.name in restood
            else state
            for pool, state in pairs
        )
    earlier = {
        pool.name: _Earlier(pool, state, restood.get(pool.name, frozenset()), moved)
        for pool, state in pairs
    }
    return tuple(
        was.state
        if (was := earlier.get(pool.name)) and pool.name not in restood and was.stays(pool)
        else _derived(pool, basis, was)
        for pool in basis.config.pools
    )


def _derived(pool: Pool, basis: Basis, was: "_Earlier | None") -> PoolState:
    new = _pool(pool, basis, was)
    return was.state if was and was.state == new else new


def _restood(
    old: Mapping[BackendKey, Standing], new: Mapping[BackendKey, Standing]
) -> Mapping[str, Set[str]]:
    """Return, by pool, the backends whose standing in force is another."""
    if old is new:
        return {}
    changed: Iterable[BackendKey]
    if isinstance(old, Standings) and isinstance(new, Standings):
        changed = new.unlike(old)
    else:
        changed = old.keys() | new.keys()
    found = defaultdict[str, set[str]](set)
    for key in changed:
        if _in_force(old.get(key)) != _in_force(new.get(key)):
            found[key[0]].add(key[1])
    return found


def _in_force(standing: Standing | None) -> tuple[int, bool] | None:
    return (standing.weight, standing.serves) if standing else None


@dataclass(frozen=True)
class _Earlier:
    """What a pool was; since then these stand otherwise, and the ways to these have changed."""

    pool: Pool
    state: PoolState
    restood: Set[str]
    moved: Set[IPAddress] = frozenset()

    def stays(self, pool: Pool) -> bool:
        """Whether nothing has changed for it but, perhaps, standings."""
        same = pool is self.pool or pool == self.pool
        return same and not (self.moved and any(b.address in self.moved for b in pool.backends))

    def members(self) -> dict[int, Member]:
        """Return what became of its backends, by their ``id``: those that are as they were."""
        restood, moved = self.restood, self.moved
        return {
            id(backend): member
            for backend, member in zip(self.pool.backends, self.state.members, strict=True)
            if backend.name not in restood and not (moved and backend.address in moved)
        }


def _pool(pool: Pool, basis: Basis, earlier: _Earlier | None = None) -> PoolState:
    standings = of_pool(basis.standings, pool.name)
    known = earlier.members() if earlier else {}

    def member(backend: Backend) -> Member:
        standing = standings.get((pool.name, backend.name))
        return _member(backend, basis.routes[backend.address], standing)

    members = tuple(known.get(id(backend)) or member(backend) for backend in pool.backends)
    return PoolState(name=pool.name, table_size=pool.table_size, members=members)


def _member(backend: Backend, paths: tuple[PathSpec, ...], standing: Standing | None) -> Member:
    if standing is None:
        return Member(backend.name, backend.address, backend.weight, paths)
    return Member(backend.name, backend.address, standing.weight, paths if standing.serves else ())


def _routes(
    config: Config,
    resolutions: Mapping[IPAddress, Resolution],
    tx: Mapping[int, int],
    before: Basis | None,
) -> Routes:
    """Return the paths to each address: the same objects as before where they are equal."""
    node = config.node
    same = before is not None and tx == before.tx and node == before.config.node
    if (
        before
        and same
        and resolutions is before.resolutions
        and config.pools is before.config.pools
    ):
        return before.routes
    routes: dict[IPAddress, tuple[PathSpec, ...]] = {}
    for address in _addresses(config, before):
        found = resolutions.get(address, UNKNOWN)
        known = before.routes.get(address) if before else None
        if before and same and known is not None and before.resolutions.get(address) == found:
            routes[address] = known
            continue
        paths = _paths(address, node, found, tx)
        routes[address] = known if known == paths else paths
    return routes


def _addresses(config: Config, before: Basis | None) -> Iterable[IPAddress]:
    if before and config.pools is before.config.pools:
        return before.routes
    return config.addresses


def _paths(
    destination: IPAddress, node: Node, resolution: Resolution, tx: Mapping[int, int]
) -> tuple[PathSpec, ...]:
    return tuple(
        _path(destination, hop, node, tx[hop.link.ifindex])
        for hop in hops_by_weight(sendable(resolution, tx))
    )


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


def sendable(resolution: Resolution, tx: Mapping[int, int]) -> tuple[NextHop, ...]:
    """Return the hops that have a TX ring."""
    return tuple(hop for hop in resolution.hops if hop.link.ifindex in tx)


def _reason(resolution: Resolution, tx: Mapping[int, int]) -> str:
    """Return why nothing can be sent to a backend; empty when something can."""
    if sendable(resolution, tx):
        return ""
    if not resolution.hops:
        return resolution.reason
    names = ", ".join(sorted({hop.link.name for hop in resolution.hops}))
    return f"no TX ring on {names}"
