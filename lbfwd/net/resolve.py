"""Where packets to a backend go: route, next hops, their MACs, source address and MTU.

The kernel answers: RTM_GETROUTE, policy rules included, with RTM_F_FIB_MATCH for the whole route
(all hops of a multipath route) instead of the one hop it would pick now (rtnetlink(7),
include/uapi/linux/rtnetlink.h). Without the flag the answer knows the path MTU that the kernel has
learned (RFC 1191, RFC 8201): RTAX_MTU is then the exception's. No event tells of those.
"""

import asyncio
import errno
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from lbfwd.net.links import Link, read_links, read_sources
from lbfwd.net.neighbours import ABSENT, Key, Neighbour, Neighbours
from lbfwd.net.route_get import RouteSocket

__all__ = ["Link", "Net", "NextHop", "Resolution"]

IPAddress = IPv4Address | IPv6Address

_RTM_F_FIB_MATCH = 0x2000
# A path MTU below is not believed: an ICMP error is easily forged, and small ones would have every
# packet cut to pieces. What any IPv4 host takes (RFC 791 section 3.2); the least of IPv6 (RFC 8200
# section 5).
LEAST_LEARNED_MTU = {4: 576, 6: 1280}
_UNICAST = 1
_LOCAL = 2
_TYPES = {
    _LOCAL: "local: this machine's own address",
    3: "broadcast",
    4: "anycast",
    5: "multicast",
    6: "blackhole",
    7: "unreachable",
    8: "prohibit",
}
# What a look-up fails with, by route type (kernel: fib_props[]).
_ERRORS = {
    errno.ENETUNREACH: "no route",
    errno.EHOSTUNREACH: "route is unreachable",
    errno.EINVAL: "route is blackhole",
    errno.EACCES: "route is prohibit",
}


@dataclass(frozen=True)
class NextHop:
    """One way to a backend. ``mac`` is the gateway's; ``mtu`` the largest outer IP packet.

    ``mtu``: the least of the link's, the route's and what the kernel has learned of the path.
    ``weight``: its share among the hops of a multipath route, 1 to 256.
    """

    link: Link
    mac: bytes
    source: IPAddress
    mtu: int
    gateway: IPAddress  # the backend itself where it is on the link
    weight: int = 1


@dataclass(frozen=True)
class Resolution:
    """The usable next hops. ``reason`` tells why there is none, or which ones are missing."""

    hops: tuple[NextHop, ...]
    reason: str = ""


@dataclass(frozen=True)
class Route:
    """The kernel's answer. ``mtu`` 0: the route sets none. No ``hops``: ``reason`` says why.

    ``path_mtu``: what a packet sent now may have at most (0: no more is known); it is learned where
    it is not ``mtu``.
    ``weights``: one a hop, 1 to 256.
    """

    hops: tuple[Key, ...] = ()
    weights: tuple[int, ...] = ()
    mtu: int = 0
    path_mtu: int = 0
    source: IPAddress | None = None
    reason: str = ""


@dataclass(frozen=True)
class View:
    """What one resolution looks at: read once, so that all backends see the same."""

    links: Mapping[int, Link]
    addresses: Mapping[tuple[int, int], IPAddress]
    neighbours: Mapping[Key, Neighbour]


class Net:
    """The routing of this machine, seen from one thread.

    Every method blocks and belongs to the same plain thread (no event loop running in it): the
    socket is opened there at first use.
    """

    @cached_property
    def _loop(self) -> asyncio.AbstractEventLoop:
        # pyroute2 runs an event loop inside; whatever the policy is, uvloop cannot carry netlink.
        return asyncio.SelectorEventLoop()

    @cached_property
    def _ipr(self) -> Any:
        return IPRoute(use_event_loop=self._loop)

    @cached_property
    def _routes(self) -> RouteSocket:
        return RouteSocket()

    @cached_property
    def _neighbours(self) -> Neighbours:
        return Neighbours(self._ipr)

    def links(self) -> dict[str, Link]:
        """Return the interfaces by name."""
        return read_links(self._ipr)

    def resolve(
        self, backends: Collection[IPAddress], sources: Sequence[IPAddress]
    ) -> dict[IPAddress, Resolution]:
        """Return the ways to each backend.

        ``sources``: outer source addresses, at most one a family; without one the output
        interface's first global address, or the route's preferred source. From now on the kernel
        keeps the next hops of these backends resolved, and of no others. Raises PermissionError
        without CAP_NET_ADMIN.
        """
        links = {link.ifindex: link for link in self.links().values()}
        source = {address.version: address for address in sources}
        asked = {version: self._askable(address) for version, address in source.items()}
        routes = {to: self._route(to, asked.get(to.version)) for to in backends}
        hops = {hop for route in routes.values() for hop in route.hops}
        wanted = {hop for hop in hops if not _unusable(links.get(hop[0]))}
        view = View(links, read_sources(self._ipr), self._neighbours.keep(wanted))
        return {
            to: resolution(route, to.version, source.get(to.version), view)
            for to, route in routes.items()
        }

    def close(self) -> None:
        """Take back the neighbours and close the socket; nothing may be called after."""
        try:
            self._neighbours.close()
        finally:
            self._routes.close()
            self._ipr.close()
            # The socket closes in the loop's next turn.
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    def _askable(self, source: IPAddress) -> IPAddress | None:
        """Return the source if routes can be looked up from it: IPv4 only from local addresses."""
        if source.version == 6:
            return source
        try:
            return source if self._routes.get(source, None, 0)["type"] == _LOCAL else None
        except NetlinkError:
            return None

    def _route(self, to: IPAddress, source: IPAddress | None) -> Route:
        try:
            whole = read_route(self._routes.get(to, source, _RTM_F_FIB_MATCH), to)
            if whole.reason:
                return whole
            picked = read_route(self._routes.get(to, source, 0), to)
            # A next-hop object with net.ipv4.nexthop_compat_mode = 0: take what the kernel picks.
            route = whole if whole.hops else picked
            return replace(route, path_mtu=picked.mtu)
        except NetlinkError as error:
            return Route(reason=_ERRORS.get(error.code, f"route: {os.strerror(error.code)}"))


def read_route(message: Any, to: IPAddress) -> Route:
    """Return what an RTM_NEWROUTE message (pyroute2's, or route_get's) says about ``to``."""
    if message["type"] != _UNICAST:
        return Route(reason=f"route is {_TYPES.get(message['type'], message['type'])}")
    paths = message.get_attr("RTA_MULTIPATH") or [message]
    if any(path.get_attr("RTA_ENCAP_TYPE") for path in paths):
        return Route(reason="route encapsulates (ip route … encap): not supported")
    metrics = message.get_attr("RTA_METRICS")
    source = message.get_attr("RTA_PREFSRC")
    usable = [path for path in paths if _output(path)]
    return Route(
        hops=tuple((_output(path), _gateway(path) or to) for path in usable),
        # struct rtnexthop (rtnetlink(7)): rtnh_hops is the weight less one.
        weights=tuple((path.get("hops") or 0) + 1 for path in usable),
        mtu=(metrics.get_attr("RTAX_MTU") if metrics else 0) or 0,
        source=ip_address(source) if source else None,
    )


def _output(path: Any) -> int:
    """Return the output interface's index: a field of a multipath hop, else an attribute."""
    return int(path.get("oif") or path.get_attr("RTA_OIF") or 0)


def _gateway(path: Any) -> IPAddress | None:
    via = path.get_attr("RTA_VIA")  # a gateway of another family
    text = via["addr"] if via else path.get_attr("RTA_GATEWAY")
    return ip_address(text) if text else None


def resolution(route: Route, version: int, source: IPAddress | None, view: View) -> Resolution:
    """Return the usable hops of a route to a backend of this IP version."""
    if not route.hops:
        return Resolution((), route.reason or "route without an output interface")
    found = [
        _next_hop(hop, weight, route, version, source, view)
        for hop, weight in zip(route.hops, route.weights, strict=True)
    ]
    return Resolution(
        tuple(hop for hop in found if isinstance(hop, NextHop)),
        "; ".join(hop for hop in found if isinstance(hop, str)),
    )


def _next_hop(  # noqa: PLR0913, PLR0917 - what a hop is, and what it is seen against
    hop: Key, weight: int, route: Route, version: int, source: IPAddress | None, view: View
) -> NextHop | str:
    """Return one hop, or why it cannot be used."""
    ifindex, gateway = hop
    link = view.links.get(ifindex)
    problem = _unusable(link)
    if link is None or problem:
        return f"next hop {gateway}: {problem}"
    neighbour = view.neighbours.get(hop, ABSENT)
    if not neighbour.mac:
        return f"next hop {gateway} on {link.name}: neighbour {neighbour.state}"
    outer = source or view.addresses.get((ifindex, version)) or route.source
    if outer is None:
        return f"{link.name} has no global IPv{version} address: set [node] source"
    return NextHop(link, neighbour.mac, outer, _mtu(link, route, version), gateway, weight)


def _mtu(link: Link, route: Route, version: int) -> int:
    """Return the largest outer packet; what an operator has set may be as small as he likes."""
    configured = min(link.mtu, route.mtu or link.mtu)
    if route.path_mtu in (0, route.mtu):
        return configured
    return min(configured, max(route.path_mtu, LEAST_LEARNED_MTU[version]))


def _unusable(link: Link | None) -> str:
    """Return why nothing can be sent on a link, or nothing."""
    if link is None:
        return "its interface is gone"
    if not link.ethernet:
        return f"{link.name} is not Ethernet"
    if not link.up:
        return f"{link.name} is down"
    return "" if link.carrier else f"{link.name} has no carrier"
