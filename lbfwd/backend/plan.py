"""What follows from a request and the state of this machine. Pure: nothing is touched here."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from lbfwd.backend.request import BackendError, IPAddress, Request

# Marks our routes, rules and addresses, so that what a killed backend left is known for ours
# (rtnetlink(7): values above 4 are free for the use of administrators).
PROTOCOL = 76
# Our rule stands right before the one for the main table, whose routes ours are copies of: rules
# that the administrator made (VRF, policy routing) keep deciding first.
RULE_PRIORITY = 32765
FIRST_TABLE = 7600
LAST_TABLE = 7699

IPV6_LEAST_MTU = 1280  # RFC 8200, section 5
GRE_BYTES = 4  # RFC 2784 without options
IP_BYTES = {4: 20, 6: 40}
TCP_BYTES = 20
ENCAPSULATION_BYTES = {family: IP_BYTES[family] + GRE_BYTES for family in IP_BYTES}

TUN_DEVICE = "lbfwd-tun"
GRE_DEVICES = {4: "lbfwd-gre4", 6: "lbfwd-gre6"}
GRE_KINDS = {4: "gre", 6: "ip6gre"}


@dataclass(frozen=True)
class Address:
    """An address of this machine."""

    address: IPAddress
    device: str


@dataclass(frozen=True)
class Underlay:
    """The way to a node: MTU in bytes, or why there is none."""

    mtu: int = 0
    problem: str = ""


@dataclass(frozen=True)
class Machine:
    """What is to be known about this machine beforehand."""

    addresses: tuple[Address, ...]
    underlays: Mapping[IPAddress, Underlay]
    tables: Collection[int]  # routing tables with routes or rules
    loopback_up: bool = True
    ipv6: bool = True  # IPv6 is enabled on the loopback device


@dataclass(frozen=True)
class Plan:
    """What is to be done."""

    request: Request
    table: int
    tunnel_mtu: int  # bytes, the largest inner packet
    underlays: Mapping[IPAddress, Underlay]
    add_vips: tuple[IPAddress, ...]  # those that are not on lo yet


def make_plan(request: Request, machine: Machine) -> Plan:
    """Plan the change. Raises BackendError with every problem, one a line."""
    problems = _problems(request, machine)
    if problems:
        raise BackendError("\n".join(problems))
    mtu = tunnel_mtu(request, machine.underlays)
    if 6 in request.vip_families() and mtu < IPV6_LEAST_MTU:
        raise BackendError(
            f"tunnel MTU {mtu}: IPv6 VIPs need {IPV6_LEAST_MTU} (RFC 8200, section 5) and "
            f"GRE takes up to {max(ENCAPSULATION_BYTES[v] for v in request.node_families())} "
            "bytes of the path's MTU: raise the MTU between the nodes and this machine"
        )
    present = {a.address for a in machine.addresses}
    vips = tuple(vip for vip in request.vips if vip not in present)
    return Plan(request, _free_table(machine.tables), mtu, machine.underlays, vips)


def tunnel_mtu(request: Request, underlays: Mapping[IPAddress, Underlay]) -> int:
    """Return the largest inner packet in bytes that fits the way from every node."""
    return min(
        (request.mtu or underlays[node].mtu) - ENCAPSULATION_BYTES[node.version]
        for node in request.nodes
    )


def advertised_mss(mtu: int, family: int) -> int:
    """Return the TCP MSS in bytes that makes clients send packets of at most ``mtu`` bytes.

    The MSS counts neither IP nor TCP options (RFC 6691): the sender takes those off itself.
    """
    return mtu - IP_BYTES[family] - TCP_BYTES


def _problems(request: Request, machine: Machine) -> list[str]:
    devices = {a.address: a.device for a in machine.addresses}
    problems = [
        f"--vip {vip}: is already an address of {devices[vip]}; a VIP belongs on lo alone"
        for vip in request.vips
        if devices.get(vip, "lo") != "lo"
    ]
    problems += [
        f"--node {node}: is an address of this machine ({devices[node]})"
        for node in request.nodes
        if node in devices
    ]
    problems += [
        f"--node {node}: {machine.underlays[node].problem}"
        for node in request.nodes
        if node not in devices and machine.underlays[node].problem
    ]
    if not machine.loopback_up:
        problems.append("lo is down, and the VIPs belong on it: ip link set lo up")
    if not machine.ipv6 and 6 in request.vip_families() + request.node_families():
        problems.append("IPv6 is disabled on lo (net.ipv6.conf.lo.disable_ipv6 = 1)")
    return problems


def _free_table(tables: Collection[int]) -> int:
    for table in range(FIRST_TABLE, LAST_TABLE + 1):
        if table not in tables:
            return table
    raise BackendError(f"no free routing table: {FIRST_TABLE} to {LAST_TABLE} are all in use")
