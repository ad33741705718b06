"""Neighbours that the kernel is asked to keep resolved, and taken back at the end.

``NTF_EXT_MANAGED`` (Linux 5.16) makes the kernel resolve an entry and go on doing so; an older
kernel ignores it and takes the ``NTF_USE`` beside it: resolve now. Kernel: net/core/neighbour.c,
neigh_add and __neigh_update; a request without the flag clears it and leaves the entry's state
alone (with NTF_USE), except that it would make a permanent entry mortal: such are not touched.
"""

import errno
import os
import socket
from collections.abc import Set
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from lbfwd.net.links import dump

IPAddress = IPv4Address | IPv6Address
Key = tuple[int, IPAddress]  # ifindex, address

_STATES = {
    0x00: "NONE",
    0x01: "INCOMPLETE",
    0x02: "REACHABLE",
    0x04: "STALE",
    0x08: "DELAY",
    0x10: "PROBE",
    0x20: "FAILED",
    0x40: "NOARP",
    0x80: "PERMANENT",
}
_UNRESOLVED = 0x01 | 0x20  # INCOMPLETE, FAILED
_FIXED = 0x40 | 0x80  # NOARP, PERMANENT: somebody else's decision
_NTF_USE = 0x01
_NTF_EXT_LEARNED = 0x10
_NTF_EXT_MANAGED = 0x01
_GONE = (errno.ENOENT, errno.ENODEV, errno.ENXIO)


@dataclass(frozen=True)
class Neighbour:
    """One entry: ``mac`` is empty where the address is not resolved, ``state`` then says why."""

    state: str
    mac: bytes
    managed: bool  # the kernel keeps it resolved
    foreign: bool  # an administrator's or a routing daemon's: not ours to change


ABSENT = Neighbour("NONE", b"", managed=False, foreign=False)


class Neighbours:
    """The entries that we asked for. ``ipr``: a pyroute2 IPRoute."""

    def __init__(self, ipr: Any) -> None:
        self._ipr = ipr
        self._held: dict[Key, bool] = {}  # whether we made the entry

    def keep(self, wanted: Set[Key]) -> dict[Key, Neighbour]:
        """Have exactly these kept resolved; return all entries as they are after that.

        A request that the kernel refuses (a full table) shows as the entry's state. Raises
        PermissionError without CAP_NET_ADMIN.
        """
        table = self._read()
        for key in self._held.keys() - wanted:
            self._release(key, table.get(key, ABSENT))
        refused = {
            key: reason for key in wanted if (reason := self._hold(key, table.get(key, ABSENT)))
        }
        table = self._read()
        for key, reason in refused.items():
            table[key] = Neighbour(reason, b"", managed=False, foreign=False)
        return table

    def close(self) -> None:
        """Take back every request; entries that were there before stay, unmanaged."""
        self.keep(frozenset())

    def _hold(self, key: Key, entry: Neighbour) -> str:
        """Ask for one neighbour. Returns why the kernel refused, or nothing."""
        if entry.foreign or entry.managed:
            return ""
        try:
            self._held[key] = self._request(key, _NTF_EXT_MANAGED)
        except NetlinkError as error:
            if error.code == errno.EPERM:
                raise PermissionError(
                    errno.EPERM, "keeping neighbours resolved needs CAP_NET_ADMIN"
                ) from error
            return os.strerror(error.code)
        return ""

    def _request(self, key: Key, flags_ext: int) -> bool:
        """Make or change an entry without touching its state. Returns whether it was made."""
        fields = {**_fields(key), "state": 0, "flags": _NTF_USE, "flags_ext": flags_ext}
        try:
            self._ipr.neigh("add", **fields)
        except NetlinkError as error:
            if error.code != errno.EEXIST:
                raise
            self._ipr.neigh("change", **fields)
            return self._held.get(key, False)
        return True

    def _release(self, key: Key, entry: Neighbour) -> None:
        made = self._held.pop(key)
        if entry.foreign or entry == ABSENT:
            return
        try:
            if made:
                self._ipr.neigh("del", **_fields(key))
            elif entry.managed:
                self._request(key, 0)
        except NetlinkError as error:
            if error.code not in _GONE:
                raise

    def _read(self) -> dict[Key, Neighbour]:
        entries = (m for m in dump(self._ipr.get_neighbours) if m.get_attr("NDA_DST"))
        return {(m["ifindex"], ip_address(m.get_attr("NDA_DST"))): _neighbour(m) for m in entries}


def _fields(key: Key) -> dict[str, Any]:
    ifindex, address = key
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    return {"family": family, "ifindex": ifindex, "dst": str(address)}


def _neighbour(message: Any) -> Neighbour:
    state, flags = message["state"], message["flags"]
    address = message.get_attr("NDA_LLADDR") or ""
    mac = b"" if state == 0 or state & _UNRESOLVED else bytes.fromhex(address.replace(":", ""))
    return Neighbour(
        state=_STATES.get(state, hex(state)),
        mac=mac if any(mac) else b"",  # a NOARP entry may hold zeros: no station
        managed=bool((message.get_attr("NDA_FLAGS_EXT") or 0) & _NTF_EXT_MANAGED),
        foreign=bool(state & _FIXED or flags & _NTF_EXT_LEARNED),
    )
