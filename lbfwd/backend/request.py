"""What the operator asks for, checked without looking at the machine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

IPAddress = IPv4Address | IPv6Address

# What every IPv4 host takes (RFC 791, section 3.2), and the largest IP packet.
MIN_MTU = 576
MAX_MTU = 65535


class BackendError(Exception):
    """The machine cannot be the backend that was asked for; each line of the text says why."""


@dataclass(frozen=True)
class Request:
    """VIPs to own, nodes to accept GRE from; ``mtu`` in bytes of the path from them, if given."""

    vips: tuple[IPAddress, ...]
    nodes: tuple[IPAddress, ...]
    mtu: int | None = None

    def vip_families(self) -> tuple[int, ...]:
        """Return the IP versions of the VIPs, ascending."""
        return tuple(sorted({vip.version for vip in self.vips}))

    def node_families(self) -> tuple[int, ...]:
        """Return the IP versions of the nodes, ascending."""
        return tuple(sorted({node.version for node in self.nodes}))


def parse(vips: Sequence[str], nodes: Sequence[str], mtu: int | None = None) -> Request:
    """Check addresses and MTU. Raises BackendError with every problem, one a line."""
    problems: list[str] = []
    parsed_vips = _addresses("--vip", vips, problems)
    parsed_nodes = _addresses("--node", nodes, problems)
    problems += [f"--node {a}: is also a VIP" for a in parsed_nodes if a in parsed_vips]
    if mtu is not None and not MIN_MTU <= mtu <= MAX_MTU:
        problems.append(f"--mtu {mtu}: must be {MIN_MTU} to {MAX_MTU} bytes")
    if problems:
        raise BackendError("\n".join(problems))
    return Request(parsed_vips, parsed_nodes, mtu)


def _addresses(option: str, values: Sequence[str], problems: list[str]) -> tuple[IPAddress, ...]:
    """Return each address once, in the order given."""
    found: dict[IPAddress, None] = {}
    for value in values:
        try:
            address = ip_address(value)
        except ValueError:
            problems.append(f"{option} {value}: must be an IPv4 or IPv6 address")
            continue
        rules = [rule for broken, rule in _RULES if broken(address)]
        problems += [f"{option} {value}: {rule}" for rule in rules]
        found[address] = None
    return tuple(found)


def _is_mapped(address: IPAddress) -> bool:
    return isinstance(address, IPv6Address) and address.ipv4_mapped is not None


_RULES: tuple[tuple[Callable[[IPAddress], bool], str], ...] = (
    (lambda address: address.is_unspecified, "must not be the unspecified address"),
    (lambda address: address.is_multicast, "must not be a multicast address"),
    (lambda address: address.is_loopback, "must not be a loopback address"),
    (lambda address: address.is_link_local, "must not be a link-local address"),
    (lambda address: str(address) == "255.255.255.255", "must not be the broadcast address"),
    (_is_mapped, "must not be an IPv4 address in IPv6 notation"),
)
