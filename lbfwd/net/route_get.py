"""RTM_GETROUTE by hand, for there are thousands of look-ups at every pass (rtnetlink(7)).

pyroute2 takes 0.3 ms of the interpreter for each, and with 2,000 backends a pass kept the event
loop from it for more than a second. Layouts: linux/netlink.h, linux/rtnetlink.h.
"""

import socket
import struct
import sys
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

IPAddress = IPv4Address | IPv6Address

_ROUTE = 0  # NETLINK_ROUTE
_RTM_GETROUTE = 26
_NLMSG_ERROR = 2
_NLM_F_REQUEST = 1
_RTA_DST, _RTA_SRC = 1, 2
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_ROUTE_MESSAGE = struct.Struct("=8BI")  # struct rtmsg: family, lengths, …, type, flags
_HOP = struct.Struct("=HBBi")  # struct rtnexthop: length, flags, hops, ifindex
_ATTRIBUTE = struct.Struct("=HH")  # struct rtattr: length, type
_INT = struct.Struct("=i")
_TYPE_MASK = 0x3FFF  # NLA_TYPE_MASK: without "nested" and "network byte order"
_ANSWER_BYTES = 65536
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


class Attributes:
    """What the kernel says, read in pyroute2's manner; addresses are their bytes."""

    def __init__(self, fields: dict[str, int], data: bytes) -> None:
        """``fields``: of the header. ``data``: the attributes behind it."""
        self._fields = fields
        self._found = dict(_attributes(data))

    def __getitem__(self, field: str) -> int:
        """Return a field of the header. Raises KeyError."""
        return self._fields[field]

    def get(self, field: str) -> int | None:
        """Return a field of the header, None where it has none."""
        return self._fields.get(field)

    def get_attr(self, name: str) -> Any:
        """Return an attribute, None where there is none."""
        number, read = _KNOWN[name]
        data = self._found.get(number)
        return None if data is None else read(data)


class RouteSocket:
    """Asks the kernel for routes, one at a time. Belongs to the namespace that it was made in."""

    def __init__(self) -> None:
        """Open the socket. Raises OSError."""
        # The answer lies there when the request has been sent: nothing is waited for.
        self._sock = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _ROUTE
        )
        self._sequence = 0

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    def get(self, to: IPAddress, source: IPAddress | None, flags: int) -> Attributes:
        """Return the route of packets to ``to``, from ``source`` where it is given.

        Raises NetlinkError when the kernel has none, OSError when it cannot be asked.
        """
        self._sequence = self._sequence % 0xFFFFFFFF + 1
        bits = (to.max_prefixlen, source.max_prefixlen if source else 0)
        body = _ROUTE_MESSAGE.pack(_FAMILIES[to.version], *bits, 0, 0, 0, 0, 0, flags)
        body += _address(_RTA_DST, to) + (_address(_RTA_SRC, source) if source else b"")
        length = _HEADER.size + len(body)
        header = _HEADER.pack(length, _RTM_GETROUTE, _NLM_F_REQUEST, self._sequence, 0)
        self._sock.sendto(header + body, (0, 0))
        return self._answer()

    def _answer(self) -> Attributes:
        data = self._sock.recv(_ANSWER_BYTES)
        while _HEADER.unpack_from(data)[3] != self._sequence:  # one that was never read
            data = self._sock.recv(_ANSWER_BYTES)
        kind = _HEADER.unpack_from(data)[1]
        if kind == _NLMSG_ERROR:
            raise NetlinkError(-_INT.unpack_from(data, _HEADER.size)[0])
        return read_answer(data)


def read_answer(data: bytes) -> Attributes:
    """Return what an RTM_NEWROUTE message says, its header included."""
    fields = _ROUTE_MESSAGE.unpack_from(data, _HEADER.size)
    return Attributes({"type": fields[7]}, data[_HEADER.size + _ROUTE_MESSAGE.size :])


def _address(kind: int, address: IPAddress) -> bytes:
    packed = address.packed
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(packed), kind) + packed


def _attributes(data: bytes) -> list[tuple[int, bytes]]:
    found, at = [], 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        found.append((kind & _TYPE_MASK, data[at + _ATTRIBUTE.size : at + length]))
        at += _aligned(length, _ATTRIBUTE.size)
    return found


def _hops(data: bytes) -> list[Attributes]:
    found, at = [], 0
    while at + _HOP.size <= len(data):
        length, _flags, hops, ifindex = _HOP.unpack_from(data, at)
        attributes = data[at + _HOP.size : at + length]
        found.append(Attributes({"oif": ifindex, "hops": hops}, attributes))
        at += _aligned(length, _HOP.size)
    return found


def _aligned(length: int, least: int) -> int:
    return max(length, least) + 3 & ~3


def _number(data: bytes) -> int:
    return int.from_bytes(data, sys.byteorder)


def _metrics(data: bytes) -> Attributes:
    return Attributes({}, data)


def _via(data: bytes) -> dict[str, bytes]:
    return {"addr": data[2:]}  # struct rtvia: family, address


_KNOWN: dict[str, tuple[int, Callable[[bytes], Any]]] = {
    "RTA_OIF": (4, _number),
    "RTA_GATEWAY": (5, bytes),
    "RTA_PREFSRC": (7, bytes),
    "RTA_METRICS": (8, _metrics),
    "RTA_MULTIPATH": (9, _hops),
    "RTA_VIA": (18, _via),
    "RTA_ENCAP_TYPE": (21, _number),
    "RTAX_MTU": (2, _number),
}
