"""The way into the tunnel: a TUN device of our own, and the policy routing that leads to it.

A probe's socket carries the mark ``MARK``; a rule has marked packets look into ``TABLE``, which
knows the device. Should rule, route or device vanish, a second rule refuses them (and tunnel_filter
drops them where that is gone): a probe never leaves unwrapped. Nothing else looks into that table,
nor does the reverse look-up of answers, whose mark is 0 (fib_validate_source,
net.ipv4.conf.*.src_valid_mark). ip-rule(8), Linux Documentation/networking/tuntap.rst.

Rules and routes carry ``PROTOCOL``, so that what a killed supervisor left is known for ours. The
device goes with its descriptor. Every function blocks.
"""

import asyncio
import errno
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from lbfwd.config import IPAddress
from lbfwd.health import rp_filter
from lbfwd.health.rp_filter import Finding
from lbfwd.health.tunnel_error import TunnelError
from lbfwd.health.tunnel_way import LocalAddress
from lbfwd.net import tun
from lbfwd.net.links import dump

DEVICE = "lbfwd-probe"
MARK = 0x76
TABLE = 7700
# Right behind the rule for local addresses: a rule of the operator's by source or destination must
# not lead a probe past the tunnel.
RULE_PRIORITY = 1
REFUSAL_PRIORITY = 2
PROTOCOL = 77  # above those that the kernel and routing daemons have (rtnetlink(7))

# What fits into every tunnel: probes are small, answers do not come through it. 576: RFC 791
# section 3.2; 1280: RFC 8200 section 5.
ROUTE_MTU: dict[int, int] = {socket.AF_INET: 576, socket.AF_INET6: 1280}
ADVERTISED_MSS = 1220  # of the answers: what fits into any path of 1280 bytes
DEVICE_MTU = 65535  # echo requests of a tunnel's exact MTU pass the routes' one over
QUEUE_PACKETS = 4096  # while the pump waits for a processor

_IPV6_SYSCTLS = Path("/proc/sys/net/ipv6")
_NO_LINK_LOCAL = 1  # addr_gen_mode: nobody is there to talk to
_SCOPE_GLOBAL = 0
_LOCAL = 2  # RTN_LOCAL
_UNFIT = 0x08 | 0x20 | 0x40  # IFA_F_DADFAILED, DEPRECATED, TENTATIVE: not (long) usable as a source
_GONE = (errno.ENOENT, errno.ESRCH, errno.ENODEV)


def open_device() -> int:
    """Make the device and lead marked packets to it. Returns the TUN descriptor, non-blocking.

    Raises TunnelError; then nothing is left. What a killed predecessor left is replaced.
    """
    fd = _make_tun()
    try:
        with _netlink("set the probe tunnel up") as ipr:
            _quiet()
            _replace_routing(ipr)
    except BaseException:
        os.close(fd)
        remove_routing()
        raise
    return fd


def is_there() -> bool:
    """Tell whether the device is: somebody's tunnel is open."""
    return DEVICE in (name for _index, name in socket.if_nameindex())


def remove_routing() -> None:
    """Remove rules and routes, ours and a predecessor's. Raises TunnelError."""
    with _netlink("remove the probe tunnel's rules and routes") as ipr:
        for family in _families():
            _remove(ipr, family)


@dataclass(frozen=True)
class Survey:
    """What the tunnel stands on: this node's addresses, and what leads probes past it, if any."""

    addresses: tuple[LocalAddress, ...]
    detour: str


def survey(vips: Iterable[IPAddress]) -> Survey:
    """Look at this node. ``vips``: one of each family tells. Raises TunnelError."""
    with _netlink("look at the probe tunnel's routing") as ipr:
        return Survey(read_addresses(ipr), _detour(ipr, vips))


def answers_blocked(vips: Iterable[IPAddress], interfaces: Iterable[str]) -> tuple[Finding, ...]:
    """Return which answers from these VIPs the kernel would not let in. Raises TunnelError."""
    with _errors_of("look at rp_filter"):
        return tuple(rp_filter.find(vips, interfaces))


def read_addresses(ipr: Any) -> tuple[LocalAddress, ...]:
    """Return every address of this node. ``ipr``: a pyroute2 IPRoute."""
    found = []
    for message in dump(ipr.get_addr):
        # IPv4 point-to-point: IFA_LOCAL is ours, IFA_ADDRESS the peer's; IPv6 has IFA_ADDRESS only.
        text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        if text:
            flags = message.get_attr("IFA_FLAGS") or message["flags"]
            fit = message["scope"] == _SCOPE_GLOBAL and not flags & _UNFIT
            found.append(LocalAddress(ip_address(text), message["index"], fit))
    return tuple(found)


def _detour(ipr: Any, vips: Iterable[IPAddress]) -> str:
    """Return why marked packets would not go into the device; empty when they do."""
    try:
        device = socket.if_nametoindex(DEVICE)
    except OSError:
        return f"{DEVICE} is gone"
    for family in _families():
        if sorted(_priorities(ipr, family)) != [RULE_PRIORITY, REFUSAL_PRIORITY]:
            return f"rules for the mark {MARK:#x} are gone"
    for vip in vips:
        family = socket.AF_INET if vip.version == 4 else socket.AF_INET6
        try:
            (answer,) = ipr.route("get", family=family, mark=MARK, dst=str(vip))
        except NetlinkError as error:
            return f"no route for probes of {vip}: {os.strerror(error.code)}"
        # An address of this node is no matter of the tunnel's: nothing to it ever leaves.
        if answer["type"] != _LOCAL and answer.get_attr("RTA_OIF") != device:
            return f"probes of {vip} would leave by another interface than {DEVICE}"
    return ""


def _make_tun() -> int:
    try:
        return tun.open_tun(DEVICE, os.O_NONBLOCK)
    except tun.NoTun as error:
        raise TunnelError(
            f'{error}: health checks with via = "tunnel" need it, or set via = "direct"'
        ) from error
    except tun.Taken as error:
        raise TunnelError(
            f"TUN device {DEVICE}: another lbfwd has it in this network namespace"
        ) from error
    except tun.TunError as error:
        raise TunnelError(str(error)) from error


def _quiet() -> None:
    """Keep the kernel from sending anything of its own into the device."""
    values = {"disable_ipv6": 0, "addr_gen_mode": _NO_LINK_LOCAL, "accept_ra": 0}
    for name, value in values.items() if _IPV6_SYSCTLS.is_dir() else ():
        path = _IPV6_SYSCTLS / "conf" / DEVICE / name
        try:
            path.write_text(f"{value}\n", encoding="ascii")
        except OSError as error:
            raise TunnelError(f"sysctl {path}: {error.strerror}") from error


def _replace_routing(ipr: Any) -> None:
    device = socket.if_nametoindex(DEVICE)
    ipr.link("set", index=device, mtu=DEVICE_MTU, txqlen=QUEUE_PACKETS, state="up")
    for family in _families():
        _remove(ipr, family)
        if _routes(ipr, family):
            raise TunnelError(
                f"routing table {TABLE} has routes that are not lbfwd's: it needs this table for "
                f"probes (ip route show table {TABLE})"
            )
        ours = {"family": family, "dst": "default", "table": TABLE, "proto": PROTOCOL}
        limits = {"mtu": ROUTE_MTU[family], "advmss": ADVERTISED_MSS}
        ipr.route("add", oif=device, metrics=limits, priority=1, **ours)
        ipr.rule("add", priority=RULE_PRIORITY, table=TABLE, **_marked(family))
        ipr.rule("add", priority=REFUSAL_PRIORITY, action="blackhole", **_marked(family))


def _remove(ipr: Any, family: int) -> None:
    for priority in _priorities(ipr, family):
        with _gone_is_fine():
            ipr.rule("del", priority=priority, **_marked(family))
    for route in _routes(ipr, family):
        if route["proto"] == PROTOCOL:
            with _gone_is_fine():
                ipr.route("del", **_named(route, family))


def _priorities(ipr: Any, family: int) -> list[int]:
    """Return those of the rules that are ours."""
    return [
        rule.get_attr("FRA_PRIORITY")
        for rule in dump(lambda: ipr.get_rules(family=family))
        if rule.get_attr("FRA_PROTOCOL") == PROTOCOL and rule.get_attr("FRA_FWMARK") == MARK
    ]


def _routes(ipr: Any, family: int) -> list[Any]:
    return dump(lambda: ipr.get_routes(family=family, table=TABLE))


def _marked(family: int) -> dict[str, int]:
    return {"family": family, "protocol": PROTOCOL, "fwmark": MARK, "fwmask": 0xFFFFFFFF}


def _named(route: Any, family: int) -> dict[str, Any]:
    ours = {"family": family, "dst": "default", "table": TABLE, "proto": PROTOCOL}
    return ours | {"type": route["type"], "priority": route.get_attr("RTA_PRIORITY")}


def _families() -> tuple[int, ...]:
    return (socket.AF_INET, socket.AF_INET6) if _IPV6_SYSCTLS.is_dir() else (socket.AF_INET,)


@contextmanager
def _netlink(operation: str) -> Iterator[Any]:
    # pyroute2 runs an event loop inside; whatever the policy is, uvloop cannot carry netlink.
    loop = asyncio.SelectorEventLoop()
    try:
        # strict_check: the kernel lists our table alone, not every route of a router.
        with _errors_of(operation), IPRoute(use_event_loop=loop, strict_check=True) as ipr:
            yield ipr
    finally:
        # The socket closes in the loop's next turn.
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


@contextmanager
def _errors_of(operation: str) -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        raise TunnelError(f"{operation}: {os.strerror(error.code)}") from error
    except OSError as error:
        raise TunnelError(f"{operation}: {error.strerror}") from error


@contextmanager
def _gone_is_fine() -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        if error.code not in _GONE:
            raise
