"""The ingress guard: the kernel's own stack never sees a packet for a VIP.

An nftables ``netdev`` ingress chain runs right behind the packet taps: the rings have had their
copy, and a VIP packet that went on would be routed a second time, or answered, by this machine.

A tagged frame belongs to the VLAN device above (eth0.100), whose guard decides, so rules match
the ethertype of the link layer, which shows the tag although it has been taken out of the frame
(nft_payload); ``ip daddr`` alone would look through it. The exception is tag 0, a mere priority
(IEEE 802.1Q), which the stack takes for the parent's own.
"""

import asyncio
import json
import socket
from collections.abc import Collection, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from lbfwd.encap import PEER_MARK
from lbfwd.net import nft

IPAddress = IPv4Address | IPv6Address

_TABLE = "netdev lbfwd"
_PRIORITY = -300  # before other ingress chains: what they do to VIP packets cannot matter
_RULES = {
    "vip4": "ether type ip ip daddr @vip4",
    "vip6": "ether type ip6 ip6 daddr @vip6",
    "priority4": "vlan id 0 vlan type ip ip daddr @vip4",
    "priority6": "vlan id 0 vlan type ip6 ip6 daddr @vip6",
}
# What nodes hand over to this one; whoever sends it, it is for nobody else here.
_MARKED = f"@th,0,16 {PEER_MARK:#06x}"
_PEER_RULES = {
    "peer4": f"ether type ip ip daddr @own4 ip protocol gre {_MARKED}",
    "peer6": f"ether type ip6 ip6 daddr @own6 ip6 nexthdr gre {_MARKED}",
    "priority_peer4": f"vlan id 0 vlan type ip ip daddr @own4 ip protocol gre {_MARKED}",
    "priority_peer6": f"vlan id 0 vlan type ip6 ip6 daddr @own6 ip6 nexthdr gre {_MARKED}",
}


class GuardError(Exception):
    """The guard cannot be installed, read or removed; the text says why."""


async def install(
    interfaces: Sequence[str], vips: Collection[IPAddress], own: Collection[IPAddress] = ()
) -> None:
    """Install the guard, or replace it in one transaction: no packet passes meanwhile.

    ``own``: this node's addresses, where it takes fragments from other nodes.

    Raises GuardError: no nft, no CAP_NET_ADMIN, no such interface.
    """
    await _change(_ruleset(_chains(interfaces), vips, own))


async def missing(
    interfaces: Sequence[str],
    vips: Collection[IPAddress] | None = None,
    own: Collection[IPAddress] = (),
) -> bool:
    """Whether the guard is not what ``install`` would make it: flushed, or a device made again.

    ``vips`` None: the addresses are not compared. Raises GuardError as ``install`` does.
    """
    try:
        chains = _chains(interfaces)
    except GuardError:  # the device is gone, and on kernels before 6.16 its chain with it
        return True
    listing = await _list()
    if listing is None or _rules(listing) != {chain: list(_rules_for(own)) for chain in chains}:
        return True
    return vips is not None and _addresses(listing) != {str(a) for a in (*vips, *own)}


async def remove() -> None:
    """Remove the guard; fine where there is none. Raises GuardError."""
    await _change(f"add table {_TABLE}\ndelete table {_TABLE}\n")


def _chains(interfaces: Sequence[str]) -> dict[str, str]:
    """Return the interface of each chain.

    Named after the index: a device that was made again has another one, and the old chain hooks
    nothing (nft's JSON does not tell a chain's device).
    """
    return {f"if{_index(name)}": name for name in interfaces}


def _index(interface: str) -> int:
    try:
        return socket.if_nametoindex(interface)
    except OSError as error:
        raise GuardError(f"ingress guard: {interface}: no such interface") from error


def _rules_for(own: Collection[IPAddress]) -> dict[str, str]:
    return _RULES | _PEER_RULES if own else _RULES


def _sets(name: str, addresses: Collection[IPAddress]) -> Iterator[str]:
    for version, kind in ((4, "ipv4_addr"), (6, "ipv6_addr")):
        found = sorted({a for a in addresses if a.version == version}, key=int)
        members = ", ".join(map(str, found))
        elements = f"elements = {{ {members} }};" if members else ""
        yield f"set {name}{version} {{ type {kind}; {elements} }}"


def _ruleset(
    chains: dict[str, str], vips: Collection[IPAddress], own: Collection[IPAddress]
) -> str:
    lines = [f"add table {_TABLE}", f"delete table {_TABLE}", f"table {_TABLE} {{"]
    lines += (*_sets("vip", vips), *(_sets("own", own) if own else ()))
    matches = _rules_for(own).items()
    rules = "\n".join(f'{match} counter drop comment "{name}"' for name, match in matches)
    for chain, interface in chains.items():
        hook = f'type filter hook ingress device "{interface}" priority {_PRIORITY};'
        lines.append(f"chain {chain} {{ {hook} policy accept;\n{rules}\n}}")
    return "\n".join([*lines, "}\n"])


async def _list() -> list[dict[str, Any]] | None:
    """Return the table's objects as nft lists them; None where there is no table."""
    try:
        output = await asyncio.to_thread(nft.run, "-j", "list", "table", *_TABLE.split())
    except nft.NothingThere:
        return None
    except nft.NftError as error:
        raise GuardError(f"ingress guard: {error}") from error
    return list(json.loads(output)["nftables"])


def _rules(listing: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Return the names of each hooked chain's rules, in order."""
    chains: dict[str, list[str]] = {
        item["chain"]["name"]: []
        for item in listing
        if item.get("chain", {}).get("hook") == "ingress"
    }
    for rule in (item["rule"] for item in listing if "rule" in item):
        chains.setdefault(rule["chain"], []).append(rule.get("comment", ""))
    return chains


def _addresses(listing: list[dict[str, Any]]) -> set[str]:
    sets = (item["set"] for item in listing if "set" in item)
    return {str(element) for found in sets for element in found.get("elem", ())}


async def _change(script: str) -> None:
    """Have nft run a script. Raises GuardError, which also says what is not there."""
    try:
        await asyncio.to_thread(nft.run, "-f", "-", script=script)
    except nft.NftError as error:
        raise GuardError(f"ingress guard: {error}") from error
