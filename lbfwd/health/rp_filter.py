"""Whether the reverse path filter of this node lets the answers of probes in (RFC 3704).

Answers to probes through the tunnel come straight from the backends, with a VIP as their source.
The kernel looks up the route back to it (Linux net/ipv4/fib_frontend.c, fib_validate_source; IPv6
has no such filter): strict (1) wants it by the interface that the answer came in by, loose (2) by
any, and an answer from an address of this machine is always dropped.
"""

import socket
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from ipaddress import IPv4Address

from pyroute2.netlink.exceptions import NetlinkError

from lbfwd.backend.sysctl import read
from lbfwd.config import IPAddress
from lbfwd.net.resolve import read_route
from lbfwd.net.route_get import RouteSocket

STRICT, LOOSE = 1, 2
LOCAL = 2  # RTN_LOCAL
RTM_F_FIB_MATCH = 0x2000


@dataclass(frozen=True)
class WayBack:
    """The kernel's route to a VIP: interfaces of its next hops; none: there is no unicast route."""

    interfaces: frozenset[str] = frozenset()
    local: bool = False


@dataclass(frozen=True)
class Finding:
    """Why answers from a VIP do not come in by an interface, and the command that helps."""

    vip: IPAddress
    interface: str
    reason: str
    fix: str

    def __str__(self) -> str:
        """One line for a log."""
        return f"{self.reason}; fix: {self.fix}"


def judge(vip: IPAddress, interface: str, value: int, way: WayBack) -> Finding | None:
    """Return what is wrong. ``value``: the effective rp_filter, the maximum of ``all`` and its."""
    if way.local:
        reason = f"VIP {vip} is an address of this node, so that answers from it are dropped"
        return Finding(vip, interface, reason, f"ip address del {vip} dev NAME (see ip address)")
    mode = f"rp_filter of {interface} is {value}"
    if value == STRICT and way.interfaces and interface not in way.interfaces:
        others = ", ".join(sorted(way.interfaces))
        reason = f"{mode} (strict), and the route back to VIP {vip} leaves by {others}"
        return Finding(vip, interface, reason, f"sysctl -w net.ipv4.conf.{interface}.rp_filter=2")
    if value in (STRICT, LOOSE) and not way.interfaces:
        reason = f"{mode}, and there is no unicast route back to VIP {vip}"
        names = (f"net.ipv4.conf.{name}.rp_filter=0" for name in ("all", interface))
        return Finding(vip, interface, reason, f"sysctl -w {' '.join(names)}")
    return None


def find(vips: Iterable[IPAddress], interfaces: Iterable[str]) -> Iterator[Finding]:
    """Look at this node: would answers from these VIPs come in by these interfaces? Blocks.

    Raises OSError for an interface that is gone, NetlinkError when the kernel cannot be asked.
    """
    general = read("ipv4/conf/all/rp_filter")
    values = {i: max(general, read(f"ipv4/conf/{i}/rp_filter")) for i in sorted(set(interfaces))}
    with closing(RouteSocket()) as routes:
        for vip in sorted(vip for vip in set(vips) if isinstance(vip, IPv4Address)):
            way = way_back(routes, vip)
            for interface, value in values.items():
                if finding := judge(vip, interface, value, way):
                    yield finding


def way_back(routes: RouteSocket, vip: IPv4Address) -> WayBack:
    """Return the kernel's route to a VIP, as the filter looks it up: without a mark."""
    try:
        message = routes.get(vip, None, RTM_F_FIB_MATCH)
    except NetlinkError as error:  # no route, or one that refuses: blackhole, unreachable
        if error.code <= 0:
            raise
        return WayBack()
    if message["type"] == LOCAL:
        return WayBack(local=True)
    indexes = {index for index, _gateway in read_route(message, vip).hops}
    return WayBack(frozenset(_name(index) for index in indexes))


def _name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return f"interface {index}"  # gone since
