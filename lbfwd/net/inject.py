"""Sends an IP packet as it is, from this machine: raw(7), IP_HDRINCL, and the same for IPv6."""

import os
import socket

from pyroute2.netlink.exceptions import NetlinkError

from lbfwd.encap import IPAddress
from lbfwd.net.route_get import RouteSocket

_RTN_LOCAL = 2
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


class InjectError(Exception):
    """The packet was not sent; the text says why."""


def way_to(destination: IPAddress) -> str:
    """Return the interface by which this machine sends to an address.

    Raises InjectError where it has none, or keeps the packet to itself; OSError without netlink.
    """
    routes = RouteSocket()
    try:
        route = routes.get(destination, None, 0)
    except NetlinkError as error:
        raise InjectError(f"no route to {destination}: {os.strerror(error.code)}") from None
    finally:
        routes.close()
    if route["type"] == _RTN_LOCAL:
        raise InjectError(
            f"{destination} is an address of this machine: the packet would not leave it "
            f"(ip route get {destination})"
        )
    return socket.if_indextoname(route.get_attr("RTA_OIF"))


def send(packet: bytes, destination: IPAddress) -> None:
    """Send a whole IP packet, whatever source it has. Raises InjectError."""
    family = _FAMILIES[destination.version]
    try:
        # Of this protocol the header is part of what is sent (raw(7); net/ipv6/raw.c).
        with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
            sock.sendto(packet, (str(destination), 0))
    except PermissionError:
        raise InjectError(
            "no permission to send a packet of one's own: run it as root (CAP_NET_RAW), or the "
            "firewall of this machine drops it"
        ) from None
    except OSError as error:
        raise InjectError(f"packet to {destination}: {error.strerror}") from None
