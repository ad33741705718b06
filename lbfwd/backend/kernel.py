"""Netlink: what this machine is, and the small changes that make it a backend.

Every method blocks. Errors are BackendError naming the operation, or NetlinkError's own where the
caller decides what an error means.
"""

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from typing import Any, Self

from pyroute2 import IPRoute
from pyroute2.netlink import nla
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from lbfwd.backend import routes
from lbfwd.backend.plan import (
    FIRST_TABLE,
    LAST_TABLE,
    PROTOCOL,
    RULE_PRIORITY,
    Address,
    Machine,
    Underlay,
)
from lbfwd.backend.request import BackendError, IPAddress, Request
from lbfwd.backend.routes import Route
from lbfwd.backend.sysctl import ipv6_enabled

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
MAIN_TABLE = 254
SCOPE_HOST = 254
IFF_UP = 1
IFA_F_NODAD = 2
FOREVER = 0xFFFFFFFF


class _External(nla):  # type: ignore[misc] # pyroute2 carries no types
    """IFLA_INFO_DATA of an ip6gre device: pyroute2 does not know that it can be external, too."""

    prefix = "IFLA_"
    nla_map = (
        *((f"IFLA_GRE_UNUSED{number}", "none") for number in range(18)),
        ("IFLA_GRE_COLLECT_METADATA", "flag"),
    )


ifinfmsg.ifinfo.register_link_kind(module={"ip6gre": _External})


@contextmanager
def naming(operation: str) -> Iterator[None]:
    """Turn the kernel's refusal into a BackendError that names the operation."""
    try:
        yield
    except NetlinkError as error:
        raise BackendError(f"{operation}: {error.args[1]}") from error


class Kernel:
    """rtnetlink of this network namespace; a context manager."""

    def __init__(self) -> None:
        """Open the socket."""
        self._ipr = IPRoute()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._ipr.close()

    # ---- what is there

    def machine(self, request: Request) -> Machine:
        """Return what the plan has to know."""
        return Machine(
            addresses=self.addresses(),
            underlays={node: self.underlay(node) for node in request.nodes},
            tables=self._tables(),
            loopback_up=self.is_up("lo"),
            ipv6=ipv6_enabled("lo"),
        )

    def index(self, device: str) -> int:
        """Return a device's index. Raises OSError when there is no such device."""
        return socket.if_nametoindex(device)

    def addresses(self) -> tuple[Address, ...]:
        """Return every address of this namespace."""
        names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in self._ipr.get_links()}
        return tuple(
            Address(_address(message), names.get(message["index"], "?"))
            for message in self._ipr.get_addr()
        )

    def underlay(self, node: IPAddress) -> Underlay:
        """Return the way to a node as the kernel routes it now."""
        try:
            (message,) = self._ipr.route("get", family=FAMILIES[node.version], dst=str(node))
        except NetlinkError as error:
            return Underlay(problem=f"no route to this node: {error.args[1]}")
        if message["type"] != routes.UNICAST:
            return Underlay(problem="no unicast route to this node")
        device_mtu = self._link(message.get_attr("RTA_OIF")).get_attr("IFLA_MTU")
        metrics = message.get_attr("RTA_METRICS")
        route_mtu = metrics.get_attr("RTAX_MTU") if metrics else None
        return Underlay(mtu=min(device_mtu, route_mtu or device_mtu))

    def main_routes(self, family: int) -> list[dict[str, Any]]:
        """Return RTM_NEWROUTE messages of the main table (family 4 or 6)."""
        return list(self._ipr.get_routes(family=FAMILIES[family], table=MAIN_TABLE))

    def reply_routes(self, family: int, table: int) -> list[Route]:
        """Return our routes in our table (family 4 or 6)."""
        messages = self._ipr.get_routes(family=FAMILIES[family], table=table)
        return [routes.parse(message) for message in messages if message["proto"] == PROTOCOL]

    def has_rule(self, vip: IPAddress, table: int) -> bool:
        """Tell whether replies from this VIP look into our table."""
        return any(
            message.get_attr("FRA_SRC") == str(vip) and message.get_attr("FRA_TABLE") == table
            for message in self._our_rules(vip.version)
        )

    # ---- changes, each beside its inverse

    def put_route(self, route: Route, table: int) -> None:
        """Make or replace a route. Raises NetlinkError."""
        self._ipr.route("replace", table=table, proto=PROTOCOL, **routes.arguments(route))

    def remove_route(self, route: Route, table: int) -> None:
        """Remove a route; one that is gone already is no error."""
        with _gone_is_fine():
            self._ipr.route("del", table=table, proto=PROTOCOL, **routes.arguments(route))

    def add_rule(self, vip: IPAddress, table: int) -> None:
        """Let replies from this VIP look into our table."""
        with naming(f"ip rule from {vip} lookup {table}"):
            self._ipr.rule("add", protocol=PROTOCOL, **_rule(vip, table))

    def remove_rule(self, vip: IPAddress, table: int) -> None:
        """Take the rule back; one that is gone already is no error."""
        with _gone_is_fine():
            self._ipr.rule("del", **_rule(vip, table))

    def add_vip(self, vip: IPAddress) -> None:
        """Put a VIP on lo so that this machine never uses it for connections of its own.

        IPv4: scope host (inet_select_addr passes it over, and arp_ignore 3 hides it). IPv6:
        deprecated (RFC 6724, rule 3), without duplicate address detection.
        """
        if vip.version == 4:
            quiet: dict[str, int] = {"scope": SCOPE_HOST}
        else:
            quiet = {"flags": IFA_F_NODAD, "preferred": 0, "valid": FOREVER}
        with naming(f"ip address add {vip} dev lo"):
            self._ipr.addr("add", proto=PROTOCOL, **self._on_lo(vip), **quiet)

    def remove_vip(self, vip: IPAddress) -> None:
        """Take a VIP off lo; one that is gone already is no error."""
        with _gone_is_fine():
            self._ipr.addr("del", **self._on_lo(vip))

    def add_gre(self, device: str, kind: str) -> bool:
        """Make a GRE device for any sender; False when this kernel has none of the kind."""
        try:
            self._ipr.link("add", ifname=device, kind=kind, gre_collect_metadata=True)
        except NetlinkError as error:
            if error.code == errno.EOPNOTSUPP:
                return False
            if error.code == errno.EEXIST:
                raise BackendError(
                    f"{kind} device {device}: another external {kind} device is in this network "
                    "namespace, and the kernel allows one: remove it first"
                ) from error
            raise BackendError(f"{kind} device {device}: {error.args[1]}") from error
        return True

    def is_up(self, device: str) -> bool:
        """Tell whether a device is up. Raises BackendError when it is gone."""
        try:
            return bool(self._link(self.index(device))["flags"] & IFF_UP)
        except OSError as error:
            raise BackendError(f"tunnel device {device} is gone: somebody removed it") from error

    def bring_up(self, device: str, mtu: int) -> None:
        """Set a device's MTU in bytes and bring it up."""
        with naming(f"ip link set {device} mtu {mtu} up"):
            self._ipr.link("set", index=self.index(device), mtu=mtu, state="up")

    def remove_device(self, device: str) -> None:
        """Remove a device; one that is gone already is no error."""
        with suppress(OSError), _gone_is_fine():
            self._ipr.link("del", index=self.index(device))

    def remove_leftovers(self) -> tuple[str, ...]:
        """Remove what a killed backend left: what carries our protocol. Returns what it was."""
        found = []
        for family in FAMILIES:
            for rule in self._our_rules(family):
                vip, table = ip_address(rule.get_attr("FRA_SRC")), rule.get_attr("FRA_TABLE")
                self.remove_rule(vip, table)
                found.append(f"rule from {vip} lookup {table}")
            for table in self._route_tables(family):
                if FIRST_TABLE <= table <= LAST_TABLE:
                    found += self._remove_our_routes(family, table)
        for message in self._ipr.get_addr(index=self.index("lo")):
            if message.get_attr("IFA_PROTO") == PROTOCOL:
                self.remove_vip(_address(message))
                found.append(f"address {_address(message)} on lo")
        return tuple(found)

    # ---- details

    def _remove_our_routes(self, family: int, table: int) -> list[str]:
        found = self.reply_routes(family, table)
        for route in found:
            self.remove_route(route, table)
        return [f"route {route} table {table}" for route in found]

    def _on_lo(self, vip: IPAddress) -> dict[str, Any]:
        return {"index": self.index("lo"), "address": str(vip), "prefixlen": vip.max_prefixlen}

    def _link(self, index: int) -> Any:
        (link,) = self._ipr.get_links(index)
        return link

    def _our_rules(self, family: int) -> list[Any]:
        return [
            rule
            for rule in self._ipr.get_rules(family=FAMILIES[family])
            if rule.get_attr("FRA_PROTOCOL") == PROTOCOL
            and rule.get_attr("FRA_PRIORITY") == RULE_PRIORITY
            and rule.get_attr("FRA_SRC")
        ]

    def _route_tables(self, family: int) -> set[int]:
        messages = self._ipr.get_routes(family=FAMILIES[family])
        return {message.get_attr("RTA_TABLE") for message in messages}

    def _tables(self) -> set[int]:
        tables = set()
        for version, family in FAMILIES.items():
            tables |= self._route_tables(version)
            rules = self._ipr.get_rules(family=family)
            tables |= {rule.get_attr("FRA_TABLE") for rule in rules}
        return tables


def _address(message: Any) -> IPAddress:
    """Return an RTM_NEWADDR message's own address (IFA_ADDRESS is a point-to-point peer's)."""
    return ip_address(message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS"))


def _rule(vip: IPAddress, table: int) -> dict[str, Any]:
    return {
        "family": FAMILIES[vip.version],
        "src": str(vip),
        "src_len": vip.max_prefixlen,
        "table": table,
        "priority": RULE_PRIORITY,
    }


@contextmanager
def _gone_is_fine() -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        if error.code not in (errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL, errno.ENODEV):
            raise
