"""Interfaces and their addresses, read by rtnetlink (rtnetlink(7))."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from pyroute2.netlink.exceptions import NetlinkDumpInterrupted

IPAddress = IPv4Address | IPv6Address

_ARPHRD_ETHER = 1
_IFF_UP = 0x1
_SCOPE_GLOBAL = 0
# IFA_F_TEMPORARY, DADFAILED, DEPRECATED, TENTATIVE: not (or not long) usable as a source
_UNFIT_V6 = 0x01 | 0x08 | 0x20 | 0x40
_DUMP_TRIES = 10


@dataclass(frozen=True)
class Link:
    """One interface. ``mac`` is 6 bytes where ``ethernet``; ``mtu`` in bytes of an IP packet.

    ``vlan``: the VID of a VLAN interface (0: it is none) on the interface with index ``below``.
    """

    name: str
    ifindex: int
    mac: bytes
    mtu: int
    up: bool
    carrier: bool
    ethernet: bool
    below: int = 0
    vlan: int = 0


def dump(request: Callable[[], Iterable[Any]]) -> list[Any]:
    """Return all of a dump; one that a change interrupted is asked for again.

    Raises NetlinkDumpInterrupted where changes never let one through.
    """
    for _ in range(_DUMP_TRIES - 1):
        try:
            return list(request())
        except NetlinkDumpInterrupted:
            continue
    return list(request())


def read_links(ipr: Any) -> dict[str, Link]:
    """Return the interfaces of this namespace by name. ``ipr``: a pyroute2 IPRoute."""
    found = [_link(message) for message in dump(ipr.get_links)]
    return {link.name: link for link in found}


def _link(message: Any) -> Link:
    address = message.get_attr("IFLA_ADDRESS") or ""
    vlan = _vlan(message)
    return Link(
        name=message.get_attr("IFLA_IFNAME"),
        ifindex=message["index"],
        mac=bytes.fromhex(address.replace(":", "")),
        mtu=message.get_attr("IFLA_MTU"),
        up=bool(message["flags"] & _IFF_UP),
        carrier=message.get_attr("IFLA_CARRIER") == 1,
        ethernet=message["ifi_type"] == _ARPHRD_ETHER,
        below=message.get_attr("IFLA_LINK") if vlan else 0,
        vlan=vlan,
    )


def _vlan(message: Any) -> int:
    """Return the VID of a VLAN interface, 0 for others and where it stands in another namespace."""
    info = message.get_attr("IFLA_LINKINFO")
    abroad = message.get_attr("IFLA_LINK_NETNSID") is not None
    if info is None or info.get_attr("IFLA_INFO_KIND") != "vlan" or abroad:
        return 0
    return int(info.get_attr("IFLA_INFO_DATA").get_attr("IFLA_VLAN_ID"))


def read_sources(ipr: Any) -> dict[tuple[int, int], IPAddress]:
    """Return the first global address by (ifindex, IP version): the default outer source."""
    sources: dict[tuple[int, int], IPAddress] = {}
    for message in dump(ipr.get_addr):
        # IPv4 point-to-point: IFA_LOCAL is ours, IFA_ADDRESS the peer's; IPv6 has IFA_ADDRESS only.
        text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        if message["scope"] != _SCOPE_GLOBAL or not text:
            continue
        address = ip_address(text)
        flags = message.get_attr("IFA_FLAGS") or message["flags"]
        if address.version == 4 or not flags & _UNFIT_V6:
            sources.setdefault((message["index"], address.version), address)
    return sources
