"""What is allowed and yet probably not meant."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from pyroute2 import IPRoute

from lbfwd.config.hardware import Hardware, this_hardware
from lbfwd.config.model import Config, Pool, Service
from lbfwd.config.problem import Problem, entry, show
from lbfwd.config.translate import Places
from lbfwd.config.values import IPAddress
from lbfwd.config.warn_health import health_warnings
from lbfwd.config.warn_workers import worker_warnings

IPNetwork = IPv4Network | IPv6Network
Shares = Callable[[Sequence[str], Sequence[int], int], Sequence[int]]

_SLOTS_A_BACKEND = 100  # paper section 3.4: then shares differ by at most 1 %
_SHARE_TOLERANCE = 0.05
_NAMES_SHOWN = 5


@dataclass(frozen=True, slots=True)
class LocalAddress:
    """An address of this machine: its interface, and the prefix that is connected through it."""

    interface: str
    address: IPAddress
    network: IPNetwork


def warnings(  # noqa: PLR0913 - by keyword, and each has a default
    config: Config,
    file: str,
    *,
    local: Collection[LocalAddress] | None = None,
    shares: Shares | None = None,
    hardware: Hardware | None = None,
    flags: Collection[str] = (),
) -> tuple[Problem, ...]:
    """Return what an operator should look at again.

    ``local`` are the machine's addresses (default: ask the kernel, which blocks and may not be
    done in a thread that runs an event loop); ``shares`` populates a table and counts the slots
    of each backend (default: lbfwd.maglev.shares); ``hardware`` is what the workers run on
    (default: ask the kernel); ``flags`` are the keys of ``[workers]`` that the command line set.
    Raises OSError when the kernel does not tell.
    """
    local = local_addresses() if local is None else local
    shares = shares or _maglev_shares
    hardware = hardware or this_hardware(config.node.interfaces)
    places = Places({"worker": [own.model_dump() for own in config.own_settings]}, file, flags)
    return (
        *_unused(config, file),
        *_fleet(config, file),
        *map(places.problem, worker_warnings(config, hardware)),
        *health_warnings(config, file),
        *(problem for pool in config.pools for problem in _table(pool, file, shares)),
        *_vips(config.services, file, local),
        *_not_here(config, file, {entry.address for entry in local}),
    )


def _maglev_shares(names: Sequence[str], weights: Sequence[int], size: int) -> Sequence[int]:
    from lbfwd.maglev import shares  # noqa: PLC0415 - it loads the C extension

    return shares(names, weights, size)


def _fleet(config: Config, file: str) -> Iterator[Problem]:
    yield from _password(config, file)
    yield from _unheard(config, file)


def _password(config: Config, file: str) -> Iterator[Problem]:
    plain = [place for place in config.etcd.endpoints if place.startswith("http://")]
    if config.etcd.user and plain:
        rule = f"its password crosses the network unencrypted to {', '.join(plain)}: use https://"
        yield Problem(file, "etcd.user", show(config.etcd.user), rule)


def _unheard(config: Config, file: str) -> Iterator[Problem]:
    """Say when no other node can ask this one whether it is there."""
    listen = config.metrics.listen
    address = listen.rpartition(":")[0].strip("[]")
    if config.fleet.nodes and (not listen or ip_address(address).is_loopback):
        without = " and gives it no fragments" if config.fleet.fragments == "peer" else ""
        rule = f"no other node of [fleet] reaches it: none sees this one{without}"
        yield Problem(file, "metrics.listen", show(listen), rule)


def _unused(config: Config, file: str) -> Iterator[Problem]:
    if not config.services and not config.etcd.endpoints:
        yield Problem(file, "service", "", "no service: nothing will be forwarded")
    used = {service.pool for service in config.services}
    for pool in config.pools:
        if pool.name not in used:
            yield Problem(file, entry("pool", pool.name), "", "no service uses this pool")


def _table(pool: Pool, file: str, shares: Shares) -> Iterator[Problem]:
    """Say where the Maglev table cannot express the weights that the pool asks for."""
    at, size, count = entry("pool", pool.name), pool.table_size, len(pool.backends)
    weights = [backend.weight for backend in pool.backends]
    if not weights:  # they register themselves
        return
    if not any(weights):
        yield Problem(file, at, "", "every weight is 0: the pool gets no new flows")
        return
    if size < _SLOTS_A_BACKEND * count:
        rule = f"less than {_SLOTS_A_BACKEND} slots for each of {count} backends: shares are coarse"
        yield Problem(file, f"{at}.table_size", show(size), rule)
    names = [backend.name for backend in pool.backends]
    won = dict(zip(names, shares(names, weights, size), strict=True))
    ideal = {b.name: size * b.weight / sum(weights) for b in pool.backends if b.weight}
    if without := [name for name in ideal if not won[name]]:
        rule = f"the table is too small for these weights; no slot for {_listed(without)}"
        yield Problem(file, f"{at}.table_size", show(size), rule)
    off = {name: abs(won[name] - want) / want for name, want in ideal.items() if won[name]}
    if coarse := [name for name, error in off.items() if error > _SHARE_TOLERANCE]:
        worst = max(coarse, key=lambda name: off[name])
        rule = (
            f"shares more than {_SHARE_TOLERANCE:.0%} off their weight: {_listed(coarse)}"
            f" (worst: {worst} has {won[worst]} slots instead of {ideal[worst]:.1f})"
        )
        yield Problem(file, f"{at}.table_size", show(size), rule)


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _vips(
    services: Sequence[Service], file: str, local: Collection[LocalAddress]
) -> Iterator[Problem]:
    seen: set[IPAddress] = set()  # one warning a VIP
    for service in services:
        rule = "" if service.vip in seen else _vip_rule(service.vip, local)
        seen.add(service.vip)
        if rule:
            key = f"{entry('service', service.name)}.vip"
            yield Problem(file, key, show(str(service.vip)), rule)


def _vip_rule(vip: IPAddress, local: Collection[LocalAddress]) -> str:
    for here in local:
        if vip == here.address:
            return (
                f"also an address of this machine ({here.interface}): packets to it will never"
                " reach the machine's own programs"
            )
    for here in local:
        if vip in here.network:
            asks = "ARP" if vip.version == 4 else "neighbour discovery"
            return (
                f"inside the connected prefix {here.network} of {here.interface}: nobody will"
                f" answer {asks} for it; announce it by routing"
            )
    return ""


def _not_here(config: Config, file: str, local: Collection[IPAddress]) -> Iterator[Problem]:
    yield from _sources(config, file, local)
    yield from _handed_over(config, file, local)


def _sources(config: Config, file: str, local: Collection[IPAddress]) -> Iterator[Problem]:
    for index, source in enumerate(config.node.source):
        if source not in local:
            rule = "not an address of this machine: ICMP errors about tunnels will not come here"
            yield Problem(file, f"node.source[{index}]", show(str(source)), rule)


def _handed_over(config: Config, file: str, local: Collection[IPAddress]) -> Iterator[Problem]:
    """Say which of this node's addresses in ``[fleet]`` others send fragments to in vain."""
    nodes = config.fleet.nodes if config.fleet.fragments == "peer" else ()
    for index, node in enumerate(nodes):
        for at, address in enumerate(node.addresses if node.name == config.node.name else ()):
            if address not in local:
                rule = "not an address of this machine: what other nodes hand over is lost"
                yield Problem(
                    file, f"fleet.nodes[{index}].addresses[{at}]", show(str(address)), rule
                )


def local_addresses() -> tuple[LocalAddress, ...]:
    """Ask the kernel for this machine's addresses (rtnetlink(7), RTM_GETADDR). Raises OSError."""
    with IPRoute() as netlink:
        names = {link["index"]: link.get("ifname") for link in netlink.get_links()}
        return tuple(
            _local_address(names.get(message["index"], "?"), message)
            for message in netlink.get_addr()
        )


def _local_address(interface: str, message: Any) -> LocalAddress:
    """Read a RTM_NEWADDR: IFA_ADDRESS is the prefix's, or the peer's where IFA_LOCAL is ours."""
    prefix = message.get("address")
    network = ip_network(f"{prefix}/{message['prefixlen']}", strict=False)
    return LocalAddress(interface, ip_address(message.get("local") or prefix), network)
