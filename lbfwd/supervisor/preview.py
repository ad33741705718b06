"""What a reload of a running node would do; looks, and changes nothing."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from lbfwd.config import Config, IPAddress
from lbfwd.forwarding import Forwarding, Member, PathSpec
from lbfwd.health.judge import Operation, scale, standings
from lbfwd.health.standing import BackendKey, Standing
from lbfwd.health.verdict import Verdict
from lbfwd.net.resolve import Resolution
from lbfwd.supervisor.blocking import in_thread
from lbfwd.supervisor.errors import SupervisorError
from lbfwd.supervisor.forecast import ServiceForecast, Side, forecast
from lbfwd.supervisor.reconcile import Parts, Reconciler
from lbfwd.supervisor.state import derive, unreachable
from lbfwd.tables import FlowCount, FlowKey

NO_MAC = bytes(6)


@dataclass(frozen=True)
class Known:
    """What is known of backends now. ``tx``: index of the TX ring by interface index."""

    resolutions: Mapping[IPAddress, Resolution]
    tx: Mapping[int, int]
    verdicts: Mapping[BackendKey, Verdict]
    operations: Mapping[BackendKey, Operation]
    standings: Mapping[BackendKey, Standing]


async def preview(
    config: Config,
    reconciler: Reconciler,
    parts: Parts,
    flows: Mapping[FlowKey, FlowCount],
) -> tuple[tuple[ServiceForecast, ...], tuple[BackendKey, ...]]:
    """Return which services would change and how, and which backends were assumed to be well.

    ``flows``: the live ones.
    """
    state = reconciler.state
    if state is None:
        raise SupervisorError("no forwarding state is in force yet: try again")
    watch = parts.watch
    known = Known(
        reconciler.view.resolutions,
        parts.ports.tx_indexes(),
        watch.verdicts(),
        watch.said(),
        watch.standings,
    )
    config = (await in_thread(None, parts.registry.merge, config, reconciler.config)).config
    now = Side(reconciler.config, state.forwarding)
    forwarding, assumed = await in_thread(None, expected, config, known, time.time())
    services = await in_thread(None, forecast, now, Side(config, forwarding), flows)
    return services, assumed


def expected(config: Config, known: Known, now: float) -> tuple[Forwarding, tuple[BackendKey, ...]]:
    """Return the state that a configuration leads to, and the backends assumed to be well. Pure.

    Whoever has never been looked up is assumed to be reachable, who has not been asked to pass; a
    slow start is taken to be over.
    """
    addresses = {(p.name, b.name): b.address for p in config.pools for b in p.backends}
    new = {key for key, address in addresses.items() if address not in known.resolutions}
    reasons = unreachable(config, known.resolutions, known.tx)
    lost = {key: reason for key, reason in reasons.items() if key not in new}
    judged = standings(config, known.verdicts, lost, known.operations, known.standings, now)
    waiting = {key for key, standing in judged.items() if standing.condition == "checking"}
    settled = judged | {
        (pool.name, backend.name): _well(standing, backend.weight * scale(pool))
        for pool in config.pools
        for backend in pool.backends
        if (standing := judged[pool.name, backend.name]).condition in ("checking", "starting")
    }
    forwarding = derive(config, known.resolutions, known.tx, settled).forwarding
    serving = {key for key in new if settled[key].serves}
    return _reach(forwarding, serving), tuple(sorted(serving | waiting))


def _well(standing: Standing, weight: int) -> Standing:
    return replace(standing, condition="up", weight=weight, serves=True, reason="")


def _reach(forwarding: Forwarding, backends: set[BackendKey]) -> Forwarding:
    """Give a path to backends that have none yet, as if their next hop was known."""

    def reached(pool: str, member: Member) -> Member:
        if member.paths or (pool, member.name) not in backends:
            return member
        to = member.address
        return replace(member, paths=(PathSpec(NO_MAC, NO_MAC, to, to, tx=0, mtu=1500),))

    pools = tuple(
        replace(pool, members=tuple(reached(pool.name, member) for member in pool.members))
        for pool in forwarding.pools
    )
    return replace(forwarding, pools=pools)
