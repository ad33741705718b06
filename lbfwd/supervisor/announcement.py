"""Which VIPs are to be announced, and why the others are not. Pure."""

import math
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass

from lbfwd.config import IPAddress, Service
from lbfwd.forwarding import PoolState

HOLD_S = 5.0  # a VIP that had to be withdrawn must be servable for so long: routers count flaps
GRACE_S = 2.0  # a node that cannot forward may recover: packets wait in its rings meanwhile


@dataclass(frozen=True)
class Claim:
    """What the services of a VIP ask for. ``reason``: why it cannot be served; empty: it can."""

    wanted: bool
    reason: str


@dataclass(frozen=True)
class Presence:
    """Whether a VIP is to be announced. ``reason``: why not.

    ``fell``: it was withdrawn since it could not be served. ``able_since``: then it could again,
    seconds of the caller's clock.
    """

    announced: bool
    reason: str = ""
    fell: bool = False
    able_since: float | None = None


def serving(pools: Iterable[PoolState]) -> frozenset[str]:
    """Return the pools that serve.

    One does as long as packets can be sent to one of its backends, be it only those of live flows
    (a drained one).
    """
    return frozenset(pool.name for pool in pools if any(member.paths for member in pool.members))


def claims(services: Iterable[Service], able: Set[str]) -> dict[IPAddress, Claim]:
    """Return, by VIP, what its services ask for: one that can be served is enough.

    ``able``: the pools that serve.
    """
    found: dict[IPAddress, Claim] = {}
    for service in services:
        claim, before = _claim(service, able), found.get(service.vip)
        if before is None or _rank(claim) > _rank(before):
            found[service.vip] = claim
    return found


def _claim(service: Service, able: Set[str]) -> Claim:
    if service.announce == "never":
        return Claim(wanted=False, reason='announce = "never"')
    if service.announce == "always" or service.pool in able:
        return Claim(wanted=True, reason="")
    return Claim(wanted=True, reason=f"no backend of pool {service.pool} serves")


def _rank(claim: Claim) -> tuple[bool, bool]:
    return claim.wanted, not claim.reason


def step(
    before: Mapping[IPAddress, Presence],
    claimed: Mapping[IPAddress, Claim],
    node_reason: str,
    now: float,
) -> dict[IPAddress, Presence]:
    """Return what becomes of each VIP now. ``node_reason``: why this node can serve none.

    A VIP that comes for the first time is announced as soon as it can be served; one that had to
    be withdrawn only after ``HOLD_S`` in which it could.
    """
    return {
        vip: _next(before.get(vip, Presence(announced=False)), claim, node_reason, now)
        for vip, claim in claimed.items()
    }


def _next(before: Presence, claim: Claim, node_reason: str, now: float) -> Presence:
    if not claim.wanted:
        return Presence(announced=False, reason=claim.reason)
    if reason := node_reason or claim.reason:
        return Presence(announced=False, reason=reason, fell=before.announced or before.fell)
    if before.announced or not before.fell:
        return Presence(announced=True)
    since = now if before.able_since is None else before.able_since
    if now - since >= HOLD_S:
        return Presence(announced=True)
    reason = f"it can be served again; announced once that has lasted {HOLD_S:g} s"
    return Presence(announced=False, reason=reason, fell=True, able_since=since)


def due(presences: Mapping[IPAddress, Presence]) -> Iterator[float]:
    """Return when hold-downs end."""
    return (p.able_since + HOLD_S for p in presences.values() if p.able_since is not None)


@dataclass(frozen=True)
class Health:
    """Whether the node as a whole can forward. ``failing_since``: seconds of the caller's clock."""

    reason: str = ""
    failing_since: float = 0.0

    def seen(self, reason: str, now: float) -> "Health":
        """Return the next; ``reason``: why it cannot now, empty: it can."""
        return Health(reason, self.failing_since if self.reason else now)

    def verdict(self, now: float) -> str:
        """Return why the node can serve no VIP, once that has lasted for ``GRACE_S``."""
        return self.reason if now - self.failing_since >= GRACE_S else ""


STARTING = Health("it starts", -math.inf)  # nothing forwards yet that may recover: no grace
