"""The configuration in force: that of the operators, and the backends that registered. Pure.

The order in which backends came decides nothing that two nodes could see differently: what is
refused follows from what the registrations say.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lbfwd.config import Config, IPAddress, Pool
from lbfwd.config.model import RegisteredBackend
from lbfwd.config.values import MAX_BACKENDS, MAX_MEMBERS
from lbfwd.fleet.registration import Registration
from lbfwd.health.standing import BackendKey

MAX_REGISTERED = 4096  # of a pool

Registrations = Mapping[BackendKey, Registration]


@dataclass(frozen=True)
class Merged:
    """``config``: with the backends that registered. ``refused``: the others, and why."""

    config: Config
    refused: Mapping[BackendKey, str]


def merge(config: Config, registrations: Registrations) -> Merged:
    """Add to each pool the backends that may be in it.

    A pool that nobody has registered in is the same object as before; so is a configuration
    without any such pool.
    """
    by_pool: dict[str, dict[str, Registration]] = defaultdict(dict)
    for (where, name), registration in registrations.items():
        by_pool[where][name] = registration
    room = MAX_BACKENDS - sum(len(pool.backends) for pool in config.pools)
    refused: dict[BackendKey, str] = {}
    taken = _Taken(config)
    added: dict[str, Pool] = {}
    for pool in sorted(config.pools, key=lambda pool: pool.name):
        if not (found := by_pool.pop(pool.name, {})):
            continue
        most = min(MAX_REGISTERED, MAX_MEMBERS - len(pool.backends), room)
        good = dict(_admitted(taken, pool, found, most, refused))
        room -= len(good)
        if good:
            more = tuple(_backend(name, good[name]) for name in sorted(good))
            added[pool.name] = pool.model_copy(update={"backends": (*pool.backends, *more)})
    refused |= {(where, name): no_pool(where) for where, them in by_pool.items() for name in them}
    if added:
        pools = tuple(added.get(pool.name, pool) for pool in config.pools)
        config = config.model_copy(update={"pools": pools})
    return Merged(config, refused)


def alike(config: Config, running: Config) -> Config:
    """Return the configuration with pools of a running one in the place of equal ones.

    Whatever is derived from a pool is kept for as long as it is the same object.
    """
    known = {pool.name: pool for pool in running.pools}
    pools = tuple(known[p.name] if known.get(p.name) == p else p for p in config.pools)
    return config.model_copy(update={"pools": pools})


def no_pool(pool: str) -> str:
    """Say that there is no such pool for backends to register in."""
    return f'pool "{pool}": no pool of this name lets backends register ([pool.register])'


def _backend(name: str, registration: Registration) -> RegisteredBackend:
    return RegisteredBackend(address=registration.address, name=name, weight=registration.weight)


def _admitted(
    taken: "_Taken",
    pool: Pool,
    found: Mapping[str, Registration],
    most: int,
    refused: dict[BackendKey, str],
) -> Iterator[tuple[str, Registration]]:
    """Yield those that may be in the pool, and note why the others may not."""
    names = {backend.name: backend.address for backend in pool.backends}
    owners = {backend.address: backend.name for backend in pool.backends}
    admitted = 0
    # Who came first has an address; by what it says itself, so that all nodes agree.
    for name, said in sorted(found.items(), key=lambda item: (item[1].since, item[0])):
        reason = taken.forbids(pool, said.address)
        if not reason and name in names:
            reason = f'name "{name}": is that of a configured backend ({names[name]})'
        if not reason and said.address in owners:
            reason = f'address {said.address}: is that of backend "{owners[said.address]}"'
        if not reason and admitted >= most:
            reason = f'pool "{pool.name}": at most {most} backends can register'
        if reason:
            refused[pool.name, name] = reason
            continue
        owners[said.address] = name
        admitted += 1
        yield name, said


class _Taken:
    """Addresses that no backend can have."""

    def __init__(self, config: Config) -> None:
        self._vips = {service.vip for service in config.services}
        self._prefixes = config.node.source_entropy
        self._nodes = {*config.node.source}
        self._nodes |= {own for node in config.fleet.nodes for own in node.addresses}

    def forbids(self, pool: Pool, address: IPAddress) -> str:
        """Return why nobody can register in a pool with this address; empty: somebody can."""
        if pool.registration is None:
            return no_pool(pool.name)
        allow = pool.registration.allow
        if not any(address in prefix for prefix in allow):
            shown = ", ".join(map(str, allow))
            return f'address {address}: outside what pool "{pool.name}" allows ({shown})'
        if address in self._vips:
            return f"address {address}: is a VIP"
        if address in self._nodes or any(address in prefix for prefix in self._prefixes):
            return f"address {address}: is a node's own"
        return ""
