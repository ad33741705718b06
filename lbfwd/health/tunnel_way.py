"""Which way a probe through the tunnel takes: outer header, interface, inner source. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lbfwd.config import IPAddress, Node, entropy_bits
from lbfwd.encap import outer_header
from lbfwd.net.resolve import NextHop, Resolution
from lbfwd.shared import PathRow, pack_paths

ETHERNET_BYTES = 14


@dataclass(frozen=True)
class LocalAddress:
    """An address of this node, the index of its interface, and whether it can be a source."""

    address: IPAddress
    ifindex: int
    fit: bool = True


@dataclass(frozen=True)
class Way:
    """One next hop of a backend, as the pump takes it.

    ``path``: a row of shared.pack_paths, the header that the workers write. ``mtu``: the largest
    inner packet in bytes, ``path_mtu``: the largest outer one. ``sources``: the probe's
    own address by IP version of the VIP.
    """

    path: bytes
    ifindex: int
    mtu: int
    path_mtu: int
    sources: Mapping[int, IPAddress]


@dataclass(frozen=True)
class Directory:
    """The ways to all backends, one a next hop, and what they were made of."""

    node: Node | None = None
    local: tuple[LocalAddress, ...] = ()
    resolutions: Mapping[IPAddress, Resolution] = field(default_factory=dict)
    ways: Mapping[IPAddress, tuple[Way, ...]] = field(default_factory=dict)

    def renewed(
        self,
        node: Node,
        local: tuple[LocalAddress, ...],
        resolutions: Mapping[IPAddress, Resolution],
    ) -> "Directory":
        """Return the directory for another state of things; what is the same is not made again.

        ``local``: without VIPs.
        """
        known = self.resolutions if (node, local) == (self.node, self.local) else {}
        found = {
            backend: self.ways[backend]
            if known.get(backend) == resolution
            else tuple(_way(node, backend, hop, local) for hop in resolution.hops)
            for backend, resolution in resolutions.items()
        }
        return Directory(node, local, resolutions, found)

    @property
    def interfaces(self) -> frozenset[str]:
        """Names of the interfaces that ways leave by."""
        return frozenset(h.link.name for r in self.resolutions.values() for h in r.hops)


def _way(node: Node, backend: IPAddress, hop: NextHop, local: Sequence[LocalAddress]) -> Way:
    prefix = next((p for p in node.source_entropy if p.version == backend.version), None)
    outer = prefix.network_address if prefix else hop.source
    header = outer_header(hop.mac, hop.link.mac, outer, backend, not node.outer_df)
    row = PathRow(header, 0, hop.mtu, entropy_bits(prefix) if prefix else 0)
    sources = {v: found for v in (4, 6) if (found := inner_source(node.source, hop, v, local))}
    inner_mtu = hop.mtu - (len(header) - ETHERNET_BYTES)
    return Way(pack_paths([row]), hop.link.ifindex, inner_mtu, hop.mtu, sources)


def inner_source(
    configured: Iterable[IPAddress], hop: NextHop, version: int, local: Sequence[LocalAddress]
) -> IPAddress | None:
    """Return the address that a backend answers: ``[node] source``, the output interface's, any.

    It has to be this machine's, of the VIP's IP version.
    """
    ours = [a for a in local if a.address.version == version and a.fit]
    own = {a.address for a in ours}
    preferred = [a for a in (*configured, hop.source) if a in own]
    beside = [a.address for a in ours if a.ifindex == hop.link.ifindex]
    return next(iter([*preferred, *beside, *(a.address for a in ours)]), None)
