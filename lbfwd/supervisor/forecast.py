"""What taking up another configuration would do, service by service. Pure.

A bucket moves when its flows would go to another server; a live flow breaks when its entry counts
no more and the new table sends it to another server than it is at.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from lbfwd import maglev
from lbfwd.config import Backend, Config, IPAddress, Pool
from lbfwd.forwarding import Forwarding, PoolState, ServiceState
from lbfwd.snapshot import BackendKey, ServiceKey
from lbfwd.tables import FlowCount, FlowKey

HASH_BITS = 32  # of the affinity hash choose the bucket


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Reweighted(_Model):
    """A backend whose configured weight changes."""

    backend: str
    old: int
    new: int


class ServiceForecast(_Model):
    """One service that changes. ``moved``: the share (0 to 1) of its buckets that move.

    ``buckets``: their number, where both tables have the same size and hash. ``flows``: live flows;
    ``breaking``: of them, an expectation where the new table decides, exact where backends leave.
    """

    name: str
    pool: str
    fate: Literal["added", "removed", "changed"]
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    reweighted: tuple[Reweighted, ...] = ()
    moved: float = 0.0
    buckets: int | None = None
    flows: int = 0
    closing: int = 0
    """Of the flows: a FIN or RST was seen."""
    breaking: int = 0


Server = IPAddress | None
"""Where a bucket's packets go: another address is another server. None: nowhere."""


@dataclass(frozen=True)
class Overlap:
    """Shares of the hash space by (server now, server then); ``unit``: what 1 is in them."""

    shares: Mapping[tuple[Server, Server], int]
    unit: int

    @property
    def moved(self) -> int:
        """What leaves a server for another one, or for nowhere."""
        return sum(n for (old, new), n in self.shares.items() if old is not None and old != new)

    def stays(self, server: Server) -> float:
        """Return which part of a server's share stays with it, 0 to 1."""
        whole = sum(n for (old, _new), n in self.shares.items() if old == server)
        return self.shares.get((server, server), 0) / whole if whole else 0.0


@dataclass(frozen=True)
class Side:
    """What is in force, or would be: a configuration, and the forwarding state that it leads to."""

    config: Config
    forwarding: Forwarding


def forecast(
    old: Side, new: Side, flows: Mapping[FlowKey, FlowCount]
) -> tuple[ServiceForecast, ...]:
    """Compare what is in force with something else; returns the services that change, by name.

    ``flows``: the live ones, by service and backend.
    """
    comparison = _Comparison(old, new)
    before = {_key(service): service for service in old.forwarding.services}
    after = {_key(service): service for service in new.forwarding.services}
    live: dict[ServiceKey, dict[BackendKey, FlowCount]] = {}
    for (service_key, backend_key), count in flows.items():
        live.setdefault(service_key, {})[backend_key] = count
    found = (
        comparison.service(before.get(key), after.get(key), live.get(key, {}))
        for key in before | after
    )
    return tuple(sorted((item for item in found if item is not None), key=lambda item: item.name))


class _Comparison:
    """Two states, and each pair of tables compared once."""

    def __init__(self, old: Side, new: Side) -> None:
        self._old = {pool.name: pool for pool in old.forwarding.pools}
        self._new = {pool.name: pool for pool in new.forwarding.pools}
        self._configured_old = {pool.name: pool for pool in old.config.pools}
        self._configured_new = {pool.name: pool for pool in new.config.pools}
        self._same_key = old.forwarding.hash_key == new.forwarding.hash_key
        self._serving = {
            (pool.name, member.name, member.address)
            for pool in new.forwarding.pools
            for member in pool.members
            if member.paths
        }
        self._overlaps: dict[tuple[str, str, bool], Overlap] = {}

    def service(
        self,
        old: ServiceState | None,
        new: ServiceState | None,
        live: Mapping[BackendKey, FlowCount],
    ) -> ServiceForecast | None:
        """Return what becomes of a service; None: nothing."""
        total = sum(count.live for count in live.values())
        counts = {"flows": total, "closing": sum(count.closing for count in live.values())}
        if old is None:
            assert new is not None  # noqa: S101 - it is in one of the two states
            return ServiceForecast(
                name=new.name, pool=new.pool, fate="added", added=_names(self._new[new.pool])
            )
        if new is None:
            return ServiceForecast(
                name=old.name,
                pool=old.pool,
                fate="removed",
                removed=_names(self._old[old.pool]),
                moved=1.0,
                breaking=total,
                **counts,
            )
        return self._changed(old, new, live, counts)

    def _changed(
        self,
        old: ServiceState,
        new: ServiceState,
        live: Mapping[BackendKey, FlowCount],
        counts: Mapping[str, int],
    ) -> ServiceForecast | None:
        rehashed = not self._same_key or old.affinity != new.affinity
        if not rehashed and self._old[old.pool] == self._new[new.pool] and old == new:
            return None
        overlap = self._overlap(old.pool, new.pool, rehashed)
        sizes = {self._old[old.pool].table_size, self._new[new.pool].table_size}
        breaking = sum(
            count.live * (1 - overlap.stays(key[2]))
            for key, count in live.items()
            if rehashed or key[0] != new.pool or key not in self._serving
        )
        found = ServiceForecast(
            name=new.name,
            pool=new.pool,
            fate="changed",
            **_members(self._configured_old[old.pool], self._configured_new[new.pool]),
            moved=overlap.moved / overlap.unit,
            buckets=overlap.moved if len(sizes) == 1 and not rehashed else None,
            breaking=math.ceil(breaking),
            **counts,
        )
        unchanged = not (found.added or found.removed or found.reweighted or found.moved)
        return None if unchanged and not found.breaking else found

    def _overlap(self, old: str, new: str, rehashed: bool) -> Overlap:
        key = (old, new, rehashed)
        if key not in self._overlaps:
            tables = table(self._old[old]), table(self._new[new])
            self._overlaps[key] = independent(*tables) if rehashed else overlap(*tables)
        return self._overlaps[key]


def table(pool: PoolState) -> list[Server]:
    """Return the server of each bucket."""
    members = [pool.members[n] for n in maglev.rank([member.name for member in pool.members])]
    weights = [member.effective_weight for member in members]
    if not any(weights):
        return [None] * pool.table_size
    servers: dict[int, Server] = {n: member.address for n, member in enumerate(members)}
    slots = maglev.populate([member.name for member in members], weights, pool.table_size)
    return [servers.get(slot) for slot in slots]


def overlap(old: list[Server], new: list[Server]) -> Overlap:
    """Compare two tables under one hash; tables of different sizes by the hashes of each bucket."""
    if len(old) == len(new):
        return Overlap(Counter(zip(old, new, strict=True)), len(old))
    shares: Counter[tuple[Server, Server]] = Counter()
    for length, one, other in _pieces(len(old), len(new)):
        shares[old[one], new[other]] += length
    return Overlap(shares, 1 << HASH_BITS)


def independent(old: list[Server], new: list[Server]) -> Overlap:
    """Compare two tables under hashes that know nothing of each other: what is to be expected."""
    before, after = Counter(old), Counter(new)
    shares = {(a, b): n * m for a, n in before.items() for b, m in after.items()}
    return Overlap(shares, len(old) * len(new))


def _pieces(one: int, other: int) -> Iterator[tuple[int, int, int]]:
    """Yield (number of hashes, bucket, bucket) where hashes share buckets in both table sizes.

    Bucket i of a table of size M begins at the first hash h with h * M >> 32 = i.
    """

    def end(bucket: int, size: int) -> int:
        return -(-((bucket + 1) << HASH_BITS) // size)

    at = i = j = 0
    while at < 1 << HASH_BITS:
        until = min(end(i, one), end(j, other))
        yield until - at, i, j
        i, j = i + (until == end(i, one)), j + (until == end(j, other))
        at = until


def _members(old: Pool, new: Pool) -> dict[str, Any]:
    before, after = _by_identity(old), _by_identity(new)
    return {
        "added": tuple(sorted(name for name, _address in after.keys() - before.keys())),
        "removed": tuple(sorted(name for name, _address in before.keys() - after.keys())),
        "reweighted": tuple(
            Reweighted(backend=name, old=before[name, address].weight, new=weight)
            for name, address in sorted(before.keys() & after.keys(), key=str)
            if (weight := after[name, address].weight) != before[name, address].weight
        ),
    }


def _by_identity(pool: Pool) -> dict[tuple[str, IPAddress], Backend]:
    return {(backend.name, backend.address): backend for backend in pool.backends}


def _names(pool: PoolState) -> tuple[str, ...]:
    return tuple(sorted(member.name for member in pool.members))


def _key(service: ServiceState) -> ServiceKey:
    return service.vip, service.protocol, service.port


def most_moved(services: Iterable[ServiceForecast]) -> float:
    """Return the largest share of buckets that moves in any service."""
    return max((service.moved for service in services), default=0.0)
