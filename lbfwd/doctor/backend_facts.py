"""Reads the facts about a backend; changes nothing. Blocks."""

import json
import re
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from lbfwd.backend.claim import NAME
from lbfwd.backend.filter import TABLE
from lbfwd.backend.kernel import FAMILIES, Kernel
from lbfwd.backend.plan import PROTOCOL, TUN_DEVICE
from lbfwd.backend.sysctl import read, read_rp_filters
from lbfwd.config import IPAddress
from lbfwd.doctor.backend import GRE_KINDS
from lbfwd.doctor.facts import BackendFacts, Device
from lbfwd.doctor.machine import host, offloads, text
from lbfwd.net import nft

_GRE = 47
_UP = 1
_STRANGER = "GRE from a stranger"
_LISTEN, _UDP_BOUND = "0A", "07"  # states in /proc/net (proc(5)): TCP_LISTEN; an unconnected UDP


@dataclass(frozen=True)
class Filter:
    """What the kit's nftables table says."""

    vips: tuple[IPAddress, ...]
    nodes: tuple[IPAddress, ...]
    strangers: int


def is_backend() -> bool:
    """Whether ``lbfwd backend`` runs in this network namespace, or has left its table."""
    return claimed() or read_filter() is not None


def claimed() -> bool:
    """Whether ``lbfwd backend`` runs in this network namespace."""
    # Not by connecting: nobody there accepts, so connections would pile up.
    names = (line.split()[-1] for line in text(Path("/proc/net/unix")).splitlines())
    return NAME.replace("\0", "@") in names


def collect(vips: Collection[IPAddress], nodes: Collection[IPAddress]) -> BackendFacts:
    """Look at this backend; without ``vips`` or ``nodes``: those of the kit's table."""
    found = read_filter()
    vips = tuple(vips) or (found.vips if found else ())
    nodes = tuple(nodes) or (found.nodes if found else ())
    with IPRoute() as ipr:
        links = list(ipr.get_links())
        ruled = frozenset().union(*(_ruled(ipr, family) for family in FAMILIES.values()))
    devices = tuple(device for link in links if (device := _device(link)))
    outside = _others(links, {"lo", *(device.name for device in devices)})
    with Kernel() as kernel:
        addresses = {entry.address: entry.device for entry in kernel.addresses()}
        underlays = {node: kernel.underlay(node) for node in nodes}
    return BackendFacts(
        host=host(),
        vips=vips,
        nodes=nodes,
        devices=devices,
        addresses=addresses,
        rp_filter=read_rp_filters(),
        arp_ignore=_effective("arp_ignore", outside),
        arp_announce=_effective("arp_announce", outside),
        filtered=found is not None,
        strangers=found.strangers if found else 0,
        underlays=underlays,
        ruled=ruled,
        listening=listening(),
        raw_drops=_raw_drops(),
        offloads=offloads(outside),
    )


def _others(links: Iterable[Any], names: Collection[str]) -> list[str]:
    found = (link.get_attr("IFLA_IFNAME") for link in links)
    return [name for name in found if name not in names]


def read_filter() -> Filter | None:
    """Return what the kit's table says; None: there is none."""
    try:
        listing = nft.run("-j", "list", "table", *TABLE.split())
    except nft.NftError:
        return None
    return parse_filter(json.loads(listing)["nftables"])


def parse_filter(listing: list[dict[str, Any]]) -> Filter:
    """Read a table as nft lists it in JSON (libnftables-json(5))."""
    sets = {item["set"]["name"]: item["set"].get("elem", []) for item in listing if "set" in item}
    strangers = sum(
        expression["counter"]["packets"]
        for item in listing
        if item.get("rule", {}).get("comment") == _STRANGER
        for expression in item["rule"]["expr"]
        if "counter" in expression
    )

    def addresses(*names: str) -> tuple[IPAddress, ...]:
        return tuple(ip_address(address) for name in names for address in sets.get(name, ()))

    return Filter(addresses("vip4", "vip6"), addresses("node4", "node6"), strangers)


def _device(link: Any) -> Device | None:
    """Return a tunnel device; None: it is another one."""
    info, name = link.get_attr("IFLA_LINKINFO"), link.get_attr("IFLA_IFNAME")
    kind = info.get_attr("IFLA_INFO_KIND") if info else ""
    if name != TUN_DEVICE and not any(kind in kinds for kinds in GRE_KINDS.values()):
        return None
    return Device(name, kind, bool(link["flags"] & _UP), link.get_attr("IFLA_MTU"))


def _ruled(ipr: Any, family: int) -> set[IPAddress]:
    """Return the sources whose packets look into the kit's table."""
    rules = [rule for rule in ipr.get_rules(family=family) if rule.get_attr("FRA_SRC")]
    return {
        ip_address(rule.get_attr("FRA_SRC"))
        for rule in rules
        if rule.get_attr("FRA_PROTOCOL") == PROTOCOL
    }


def _effective(name: str, devices: Collection[str]) -> Mapping[str, int]:
    """Return a sysctl by device: the kernel takes the maximum of ``all`` and its own."""
    general = read(f"ipv4/conf/all/{name}")
    return {device: max(general, read(f"ipv4/conf/{device}/{name}")) for device in devices}


def listening() -> frozenset[IPAddress]:
    """Return the local addresses of sockets that take what comes, TCP and UDP."""
    found = set()
    for name, state in (("tcp", _LISTEN), ("tcp6", _LISTEN), ("udp", _UDP_BOUND),
                        ("udp6", _UDP_BOUND)):  # fmt: skip
        for line in text(Path("/proc/net") / name).splitlines()[1:]:
            words = line.split()
            if words[3] == state:
                found.add(parse_address(words[1].partition(":")[0]))
    return frozenset(found)


def parse_address(digits: str) -> IPAddress:
    """Read an address of /proc/net: 32-bit words in the host's byte order (proc(5))."""
    words = re.findall(".{8}", digits)
    raw = b"".join(int(word, 16).to_bytes(4, sys.byteorder) for word in words)
    return IPv4Address(raw) if len(raw) == 4 else IPv6Address(raw)


def _raw_drops() -> int:
    """Return what found no room at raw GRE sockets: the last column of /proc/net/raw."""
    rows = [
        line.split()
        for name in ("raw", "raw6")
        for line in text(Path("/proc/net") / name).splitlines()[1:]
    ]
    return sum(int(row[-1]) for row in rows if int(row[1].rpartition(":")[2], 16) == _GRE)
