"""Rules between keys, checked on the document: they hold even where other parts are wrong.

What is wrong by itself has been marked BAD before (document.py); a rule that needs a BAD value
keeps silent, so that nobody is told of what only follows from another mistake.
"""

import mmap
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_address, ip_network
from typing import Any

from lbfwd.config.document import BAD, Document, tables
from lbfwd.config.model import service_name
from lbfwd.config.problem import Finding, Location, show
from lbfwd.config.rules_fleet import fleet_rules
from lbfwd.config.rules_health import health_rules
from lbfwd.config.translate import closest
from lbfwd.config.values import (
    DEFAULT_RX_BLOCK_KIB,
    DEFAULT_RX_RING_MIB,
    DEFAULT_TABLE_SIZE,
    MAX_BACKENDS,
    canonical,
)

KeyOf = Callable[[Location], str]
_PAGE_KIB = mmap.PAGESIZE // 1024


def cross_check(
    document: Document, key_of: KeyOf, settled: Collection[int] = ()
) -> Iterator[Finding]:
    """Yield what is wrong between keys; ``key_of`` turns a location into its key path.

    ``settled``: places of pools whose names and addresses are known to be right, repetitions and
    VIPs considered: there may be very many.
    """
    pools = [_Pool(at, pool, at[1] in settled) for at, pool in tables(document, "pool")]
    yield from _workers(document, key_of)
    yield from _pool_names(pools, key_of)
    for pool in pools:
        yield from _backends(pool)
        yield from _table_size(pool)
    yield from health_rules(document)
    yield from _services(document, key_of)
    yield from _pools_of_services(document)
    yield from _vips_used_otherwise(document, pools, key_of)
    yield from _addresses_in_entropy(document, pools, key_of)
    yield from fleet_rules(document, key_of)


def _address(table: Document, key: str) -> Any:
    """Return an address as the one text that it can be compared by."""
    value = table.get(key, BAD)
    return value if value is BAD else canonical(value)


@dataclass(frozen=True)
class _Pool:
    """A pool, where it stands, and whether its backends are known to be right."""

    at: Location
    table: Document
    settled: bool

    @cached_property
    def backends(self) -> Sequence[tuple[int, Document]]:
        """Those that are tables, with their numbers."""
        items = self.table.get("backends")
        numbered = enumerate(items if isinstance(items, list) else ())
        return [(index, item) for index, item in numbered if isinstance(item, dict)]

    @cached_property
    def addresses(self) -> Sequence[Any]:
        """The addresses of these."""
        return [_address(item, "address") for _, item in self.backends]

    def count(self) -> int:
        """Return how many backends there are."""
        return len(self.table.get("backends", ()) if self.settled else self.backends)

    def place(self, index: int) -> Location:
        """Return where a backend stands."""
        return (*self.at, "backends", index)


class _Taken:
    """Remembers where each value stands first."""

    def __init__(self) -> None:
        self._first: dict[Hashable, Location] = {}

    def by(self, value: Hashable, location: Location) -> Location | None:
        """Return the entry that has this value already, if any."""
        if value is BAD or (isinstance(value, tuple) and BAD in value):
            return None
        first = self._first.setdefault(value, location)
        return None if first is location else first


def _workers(document: Document, key_of: KeyOf) -> Iterator[Finding]:
    table = document.get("workers")
    common = table if isinstance(table, dict) else {}
    yield from _ring(("workers",), common, common)
    cpus, taken = common.get("cpus", BAD), _Taken()
    known = cpus is not BAD and BAD not in cpus
    for at, worker in tables(document, "worker"):
        cpu = worker.get("cpu", BAD)
        if first := taken.by(cpu, at):
            rule = f"a worker has one [[worker]]; {key_of(first)} is for this cpu already"
            yield Finding((*at, "cpu"), show(cpu), rule)
        elif known and cpu is not BAD and cpu not in cpus:
            rule = f"no worker runs on this cpu; workers.cpus = {show(cpus)}"
            yield Finding((*at, "cpu"), show(cpu), rule)
        yield from _ring(at, worker, common)


def _ring(at: Location, table: Document, common: Document) -> Iterator[Finding]:
    """Check the RX ring that a table asks for; what it does not say is as in ``[workers]``."""
    here = [key for key in ("rx_block_kib", "rx_ring_mib") if key in table]
    ring_mib, block_kib = (
        (common | table).get(key, default)
        for key, default in (
            ("rx_ring_mib", DEFAULT_RX_RING_MIB),
            ("rx_block_kib", DEFAULT_RX_BLOCK_KIB),
        )
    )
    if not here or block_kib is BAD:
        return
    place = (*at, here[0])
    if block_kib % _PAGE_KIB:
        if "rx_block_kib" in here:
            rule = f"a multiple of the page size, {_PAGE_KIB} KiB"
            yield Finding(place, show(block_kib), rule)
    elif ring_mib is not BAD and (ring_mib * 1024 % block_kib or ring_mib * 1024 < 2 * block_kib):
        rule = (
            f"blocks of {block_kib} KiB (rx_block_kib) must fill the ring of {ring_mib} MiB"
            " (rx_ring_mib) exactly, at least two"
        )
        yield Finding(place, show(table[here[0]]), rule)


def _pool_names(pools: Sequence[_Pool], key_of: KeyOf) -> Iterator[Finding]:
    taken = _Taken()
    for pool in pools:
        name = pool.table.get("name", BAD)
        if first := taken.by(name, pool.at):
            rule = f"two pools cannot have one name; {key_of(first)} has it already"
            yield Finding((*pool.at, "name"), show(name), rule)
    backends = sum(pool.count() for pool in pools)
    if backends > MAX_BACKENDS:
        rule = f"all pools together hold at most {MAX_BACKENDS} backends"
        yield Finding(("pool",), f"({backends} backends)", rule)


def _backends(pool: _Pool) -> Iterator[Finding]:
    if pool.settled:
        return
    pairs = zip(pool.addresses, pool.backends, strict=True)
    names = [backend.get("name", address) for address, (_, backend) in pairs]
    if _repeated(pool.addresses) or _repeated(names):
        yield from _repetitions(pool)


def _repeated(values: Sequence[Hashable]) -> bool:
    return len(set(values)) < len(values)


def _repetitions(pool: _Pool) -> Iterator[Finding]:
    names, addresses = _Taken(), _Taken()
    for (index, backend), address in zip(pool.backends, pool.addresses, strict=True):
        at = pool.place(index)
        twice = addresses.by(address, at)
        if twice:
            rule = f"a backend stands in a pool once; backends[{twice[-1]}] has this address"
            yield Finding((*at, "address"), show(backend["address"]), rule)
        name = backend.get("name", BAD if twice else address)
        if first := names.by(name, at):
            rule = f"names are unique in a pool; backends[{first[-1]}] has this one"
            yield Finding((*at, "name"), show(name), rule)


def _table_size(pool: _Pool) -> Iterator[Finding]:
    size = pool.table.get("table_size", DEFAULT_TABLE_SIZE)
    backends = pool.table.get("backends")
    if size is not BAD and isinstance(backends, list) and size < len(backends):
        rule = f"the table needs a slot for each of the {len(backends)} backends at least"
        yield Finding((*pool.at, "table_size"), show(size), rule)


def _services(document: Document, key_of: KeyOf) -> Iterator[Finding]:
    names, places = _Taken(), _Taken()
    for at, service in tables(document, "service"):
        vip = _address(service, "vip")
        protocol, port = service.get("protocol", BAD), service.get("port")
        twice = places.by((vip, protocol, port), at)
        if twice:
            rule = f"same VIP, protocol and port as {key_of(twice)}"
            yield Finding(at, show(service_name(vip, protocol, port)), rule)
        unnamed = BAD if twice or BAD in (vip, protocol, port) else None
        name = service.get("name", unnamed) or service_name(vip, protocol, port)
        if first := names.by(name, at):
            rule = f"two services cannot have one name; {key_of(first)} has it already"
            yield Finding((*at, "name"), show(name), rule)


def _pools_of_services(document: Document) -> Iterator[Finding]:
    if document.get("pool") is BAD:
        return
    names = [pool.get("name", BAD) for _, pool in tables(document, "pool")]
    known = set(names)
    if BAD in known:  # it may be the one that is meant
        return
    for at, service in tables(document, "service"):
        name = service.get("pool", BAD)
        if name is not BAD and name not in known:
            meant = closest(name, names)
            advice = f'did you mean "{meant}"?' if meant else _pools_there_are(names)
            yield Finding((*at, "pool"), show(name), f"no pool has this name; {advice}")


def _pools_there_are(names: list[str]) -> str:
    shown = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
    return f"there are: {shown}" if names else "there is no pool at all"


def _vips_used_otherwise(
    document: Document, pools: Sequence[_Pool], key_of: KeyOf
) -> Iterator[Finding]:
    # A packet to a VIP comes back to the nodes: it reaches no backend and no tunnel's source.
    vips: dict[str, Location] = {}
    for at, service in tables(document, "service"):
        vips.setdefault(_address(service, "vip"), at)
    vips.pop(BAD, None)
    for pool in pools:
        if pool.settled or vips.keys().isdisjoint(pool.addresses):
            continue
        for (index, backend), address in zip(pool.backends, pool.addresses, strict=True):
            if service_at := vips.get(address):
                rule = f"the VIP of {key_of(service_at)}; a backend needs an address of its own"
                place = (*pool.place(index), "address")
                yield Finding(place, show(backend["address"]), rule)
    node = document.get("node")
    sources = node.get("source") if isinstance(node, dict) else None
    for index, source in enumerate(sources if isinstance(sources, list) else ()):
        if source is not BAD and (service_at := vips.get(canonical(source))):
            rule = f"the VIP of {key_of(service_at)}; the node needs an address of its own"
            yield Finding(("node", "source", index), show(source), rule)


def _addresses_in_entropy(
    document: Document, pools: Sequence[_Pool], key_of: KeyOf
) -> Iterator[Finding]:
    # An outer source that is somebody's address: answers and ICMP errors would go there.
    node = document.get("node")
    prefixes = node.get("source_entropy") if isinstance(node, dict) else None
    for index, prefix in enumerate(prefixes if isinstance(prefixes, list) else ()):
        if prefix is BAD:
            continue
        for key in _used_within(document, pools, prefix):
            rule = f"{key_of(key)} lies in it; a prefix is needed that nobody else uses"
            yield Finding(("node", "source_entropy", index), show(prefix), rule)
            break


def _used_within(document: Document, pools: Sequence[_Pool], prefix: str) -> Iterator[Location]:
    network = ip_network(prefix)
    places = [((*at, "vip"), _address(table, "vip")) for at, table in tables(document, "service")]
    for pool in pools:
        for (index, _), address in zip(pool.backends, pool.addresses, strict=True):
            places.append(((*pool.place(index), "address"), address))
    yield from (
        place for place, address in places if address is not BAD and ip_address(address) in network
    )
