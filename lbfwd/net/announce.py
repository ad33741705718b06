"""Host routes for VIPs in a routing table of their own, for a routing daemon to import.

All host routes of protocol ``PROTOCOL`` are lbfwd's, in whatever table; no other is touched. They
lead to ``lo``: daemons import that as an ordinary route, and where one copies it into the main
table (FRR's ``ip import-table``) it is still a unicast route, which the reverse path filter lets
answers from a VIP pass by (rp_filter 0 or 2). Every function blocks. ip-route(8), rtnetlink(7).
"""

import asyncio
import errno
import os
import socket
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from lbfwd.config import IPAddress
from lbfwd.net.links import dump

PROTOCOL = 247  # free: neither the kernel's nor a routing daemon's (include/uapi/linux/rtnetlink.h)
_METRIC = 1024  # what the kernel gives an IPv6 route that has none
_SCOPE_LINK = 253
_IPV6_SYSCTLS = Path("/proc/sys/net/ipv6")
_GONE = (errno.ENOENT, errno.ESRCH, errno.ENODEV)


class AnnounceError(Exception):
    """Routes could not be read or changed; the text says why."""


class VipRoute(NamedTuple):
    """A host route of lbfwd's."""

    table: int
    vip: IPAddress


@dataclass(frozen=True)
class Enforced:
    """What was changed, and what could not be, with the reason."""

    added: Set[VipRoute]
    removed: Set[VipRoute]
    failed: Mapping[VipRoute, str]


def enforce(wanted: Set[VipRoute]) -> Enforced:
    """Add the routes that are lacking, then remove those of lbfwd's that are too many.

    Routes of a predecessor stay where they are wanted. Raises AnnounceError when nothing could be
    done at all.
    """
    with _netlink() as ipr:
        there = frozenset(_routes(ipr))
        lacking, surplus = wanted - there, there - wanted
        failed = _change(ipr, "add", lacking) | _change(ipr, "del", surplus)
        return Enforced(lacking - failed.keys(), surplus - failed.keys(), failed)


def _change(ipr: Any, verb: Literal["add", "del"], routes: Set[VipRoute]) -> dict[VipRoute, str]:
    """Return what could not be done, and why; what somebody else has done meanwhile is fine."""
    failed: dict[VipRoute, str] = {}
    for route in routes:
        try:
            ipr.route(verb, **_named(route))
        except NetlinkError as error:
            if verb == "add" and error.code == errno.EEXIST:
                failed[route] = f"table {route.table} has a route to it that is not lbfwd's"
            elif verb == "add" or error.code not in _GONE:
                failed[route] = os.strerror(error.code)
    return failed


def _named(route: VipRoute) -> dict[str, Any]:
    vip = route.vip
    named: dict[str, Any] = {
        "family": socket.AF_INET if vip.version == 4 else socket.AF_INET6,
        "dst": f"{vip}/{vip.max_prefixlen}",
        "table": route.table,
        "proto": PROTOCOL,
        "oif": socket.if_nametoindex("lo"),
    }
    return named | ({"scope": _SCOPE_LINK} if vip.version == 4 else {"priority": _METRIC})


def _routes(ipr: Any) -> Iterator[VipRoute]:
    families = (socket.AF_INET, socket.AF_INET6) if _IPV6_SYSCTLS.is_dir() else (socket.AF_INET,)
    for family in families:
        for message in _dump(ipr, family):
            vip = ip_address(message.get_attr("RTA_DST") or "::")
            if message["proto"] == PROTOCOL and message["dst_len"] == vip.max_prefixlen:
                yield VipRoute(message.get_attr("RTA_TABLE"), vip)


def _dump(ipr: Any, family: int) -> list[Any]:
    return dump(lambda: ipr.get_routes(family=family, proto=PROTOCOL))


@contextmanager
def _netlink() -> Iterator[Any]:
    # pyroute2 runs an event loop inside; whatever the policy is, uvloop cannot carry netlink.
    loop = asyncio.SelectorEventLoop()
    try:
        # strict_check: the kernel gives our routes alone, not the whole of a router's table.
        with IPRoute(use_event_loop=loop, strict_check=True) as ipr:
            yield ipr
    except NetlinkError as error:
        raise AnnounceError(f"routes of VIPs: {os.strerror(error.code)}") from error
    except OSError as error:
        raise AnnounceError(f"routes of VIPs: {error.strerror}") from error
    finally:
        # The socket closes in the loop's next turn.
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
