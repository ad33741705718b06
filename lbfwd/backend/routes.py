"""Routes for replies: the main table's, with an MSS to advertise. Pure.

Replies from a VIP take the way that any packet takes, so the table for them is a copy of the main
table; only RTAX_ADVMSS differs, which TCP puts into the SYN-ACK's MSS option. Messages are
pyroute2's dictionaries of rtnetlink(7) attributes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from socket import AF_INET, AF_INET6
from typing import Any

UNICAST = 1
# Types that decide where unicast goes (RTN_*): unicast, blackhole, unreachable, prohibit, throw.
COPIED_TYPES = frozenset({UNICAST, 6, 7, 8, 9})
ONLINK = 4  # RTNH_F_ONLINK: the only next-hop flag that is configuration, the others are state
LOOPBACK = 1  # the index of lo in every network namespace
CLONED = 0x200  # RTM_F_CLONED: an entry of the route cache
METRIC_PREFIX = "RTAX_"

Metrics = tuple[tuple[str, int], ...]


class UnknownRouteError(Exception):
    """A route of the main table that cannot be copied; the text names it and why."""


@dataclass(frozen=True)
class Hop:
    """One next hop. ``via`` is a gateway of the other family (RTA_VIA)."""

    oif: int
    gateway: str | None = None
    via: tuple[int, str] | None = None
    weight: int = 0  # rtnh_hops: the weight minus one
    flags: int = 0


@dataclass(frozen=True)
class Route:
    """A route; the first four fields are what the kernel tells routes apart by."""

    family: int
    destination: str  # prefix, "0.0.0.0/0" for the default route
    tos: int
    priority: int
    type: int
    scope: int
    hops: tuple[Hop, ...] = ()
    metrics: Metrics = ()
    preference: int | None = None  # RFC 4191, IPv6 only

    def key(self) -> tuple[int, str, int, int]:
        """Return what the kernel tells routes apart by."""
        return self.family, self.destination, self.tos, self.priority

    def __str__(self) -> str:
        return f"{self.destination} metric {self.priority}"


def copies(message: Mapping[str, Any]) -> bool:
    """Tell whether this route of the main table belongs into the table for replies.

    No reply goes to a link-local address (the request came through a tunnel), nor to an address
    on lo (the table ``local`` answers before).
    """
    attrs = dict(message["attrs"])
    return (
        message["type"] in COPIED_TYPES
        and not message["flags"] & CLONED
        and not attrs.get("RTA_DST", "").startswith("fe80:")
        and not (message["type"] == UNICAST and attrs.get("RTA_OIF") == LOOPBACK)
    )


def parse(message: Mapping[str, Any]) -> Route:
    """Return the route of an RTM_NEWROUTE message. Raises UnknownRouteError."""
    attrs = dict(message["attrs"])
    family = message["family"]
    any_address = {AF_INET: "0.0.0.0", AF_INET6: "::"}[family]  # noqa: S104 - a route, no socket
    destination = f"{attrs.get('RTA_DST', any_address)}/{message['dst_len']}"
    if message["src_len"] or "RTA_ENCAP" in attrs:
        raise UnknownRouteError(f"{destination}: source-specific or encapsulating route")
    metrics = {} if "RTA_METRICS" not in attrs else dict(attrs["RTA_METRICS"]["attrs"])
    return Route(
        family=family,
        destination=destination,
        tos=message["tos"],
        priority=attrs.get("RTA_PRIORITY", 0),
        type=message["type"],
        scope=message["scope"],
        hops=_hops(message, attrs, destination),
        metrics=tuple(sorted((k, v) for k, v in metrics.items() if k.startswith(METRIC_PREFIX))),
        preference=attrs.get("RTA_PREF"),
    )


def _hops(
    message: Mapping[str, Any], attrs: Mapping[str, Any], destination: str
) -> tuple[Hop, ...]:
    if message["type"] != UNICAST:
        return ()
    if "RTA_MULTIPATH" in attrs:
        return tuple(_hop(nh, dict(nh["attrs"]), destination) for nh in attrs["RTA_MULTIPATH"])
    if "RTA_OIF" not in attrs:
        raise UnknownRouteError(f"{destination}: has no output interface of its own")
    single = {"oif": attrs["RTA_OIF"], "hops": 0, "flags": message["flags"]}
    return (_hop(single, attrs, destination),)


def _hop(header: Mapping[str, Any], attrs: Mapping[str, Any], destination: str) -> Hop:
    if "RTA_ENCAP" in attrs:
        raise UnknownRouteError(f"{destination}: encapsulating route")
    via = attrs.get("RTA_VIA")
    return Hop(
        oif=header["oif"],
        gateway=attrs.get("RTA_GATEWAY"),
        via=(via["family"], via["addr"]) if via else None,
        weight=header["hops"],
        flags=header["flags"] & ONLINK,
    )


def for_replies(routes: Iterable[Route], mss: int) -> dict[tuple[int, str, int, int], Route]:
    """Return the copies by key, advertising at most ``mss`` bytes (a smaller MSS is kept).

    Where the main table holds several routes of one key, the first is the one in use.
    """
    wanted: dict[tuple[int, str, int, int], Route] = {}
    for route in routes:
        metrics = dict(route.metrics)
        if route.type == UNICAST:
            metrics["RTAX_ADVMSS"] = min(mss, metrics.get("RTAX_ADVMSS", mss))
        wanted.setdefault(route.key(), replace(route, metrics=tuple(sorted(metrics.items()))))
    return wanted


def arguments(route: Route) -> dict[str, Any]:
    """Return the arguments of ``IPRoute.route`` that make this route."""
    result: dict[str, Any] = {
        "family": route.family,
        "dst": route.destination,
        "tos": route.tos,
        "priority": route.priority,
        "type": route.type,
        "scope": route.scope,
        "flags": 0,
    }
    if route.preference is not None:
        result["pref"] = route.preference
    if route.metrics:
        result["metrics"] = {k.removeprefix(METRIC_PREFIX).lower(): v for k, v in route.metrics}
    if len(route.hops) == 1:
        hop = route.hops[0]
        result |= {"oif": hop.oif, "flags": hop.flags, **_gateway(hop)}
    elif route.hops:
        result["multipath"] = [
            {"oif": hop.oif, "hops": hop.weight, "flags": hop.flags, **_gateway(hop)}
            for hop in route.hops
        ]
    return result


def _gateway(hop: Hop) -> dict[str, Any]:
    if hop.via:
        return {"via": {"family": hop.via[0], "addr": hop.via[1]}}
    return {"gateway": hop.gateway} if hop.gateway else {}
