"""What is to be forwarded where: the plain values that a generation is made of. No I/O.

The supervisor derives a ``Forwarding`` from configuration, network and health; ``tables`` turns it
into shared memory.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property

from lbfwd.encap import IPAddress


@dataclass(frozen=True)
class PathSpec:
    """One next hop of a backend: MACs, outer addresses, TX ring and the link's MTU in bytes."""

    src_mac: bytes
    dst_mac: bytes
    source: IPAddress
    destination: IPAddress
    tx: int
    mtu: int
    entropy_bits: int = 0
    """So many low bits of the source are taken from the flow hash; they are 0 in ``source``."""
    may_fragment: bool = False
    """DF is not set in an outer IPv4 header."""
    gre_flags: int = 0
    """The first 16 bits of the GRE header."""


@dataclass(frozen=True)
class Member:
    """A backend of a pool. Weight 0, or no path: it gets no traffic."""

    name: str
    address: IPAddress
    weight: int
    paths: tuple[PathSpec, ...]

    @property
    def effective_weight(self) -> int:
        """The weight its table is populated with."""
        return self.weight if self.paths else 0


@dataclass(frozen=True)
class PoolState:
    """A pool with the members that are configured, usable or not."""

    name: str
    table_size: int
    members: tuple[Member, ...]

    @cached_property
    def serving(self) -> frozenset[str]:
        """The members that packets can be sent to."""
        return frozenset(member.name for member in self.members if member.paths)

    @cached_property
    def facts(self) -> bytes:
        """What of it decides forwarding, as a fingerprint digests it."""
        members = sorted([m.name, str(m.address), m.effective_weight] for m in self.members)
        return _text(self.table_size, members)


@dataclass(frozen=True)
class ServiceState:
    """A service; port 0 stands for every port."""

    name: str
    vip: IPAddress
    protocol: str
    port: int
    affinity: str
    pool: str
    empty: str = "drop"
    """Without a usable backend: ``drop``, or ``reject`` so that the sender knows."""


@dataclass(frozen=True)
class PeerNode:
    """A node of the fleet. One that is not live is given no fragments, but may hand some over."""

    name: str
    addresses: tuple[IPAddress, ...]
    live: bool
    paths: tuple[PathSpec, ...]
    """To it; none to this node itself."""


@dataclass(frozen=True)
class Peers:
    """Nodes of the fleet, which hand fragments over to each other; ``here``: this one's name."""

    nodes: tuple[PeerNode, ...]
    here: str


@dataclass(frozen=True)
class FlowTimes:
    """How long a flow table entry lives unseen, in seconds."""

    unconfirmed_s: int = 30
    tcp_idle_s: int = 900
    tcp_closing_s: int = 60
    udp_idle_s: int = 120


@dataclass(frozen=True)
class Forwarding:
    """A whole forwarding state. ``echo``: who answers echo requests to a VIP.

    ``peers``: None where fragments stay on the node that they came to.
    """

    hash_key: bytes
    services: tuple[ServiceState, ...]
    pools: tuple[PoolState, ...]
    flow_times: FlowTimes = FlowTimes()
    echo: str = "reply"
    peers: Peers | None = None

    def __repr__(self) -> str:
        """Leave the secret out."""
        return f"Forwarding({len(self.services)} services, {len(self.pools)} pools)"


def fingerprints(forwarding: Forwarding) -> dict[str, str]:
    """Return, by service, 16 hex digits that are equal on all nodes that would forward it alike.

    BLAKE2b digests, keyed with the fleet's hash key, over what decides forwarding: VIP, protocol,
    port, affinity, and the digest of the pool: table size, and members by name with address and
    weight in force.
    """

    def digest(text: bytes) -> str:
        return hashlib.blake2b(text, key=forwarding.hash_key, digest_size=8).hexdigest()

    pools = {pool.name: digest(pool.facts) for pool in forwarding.pools}
    return {
        s.name: digest(_text(str(s.vip), s.protocol, s.port, s.affinity, pools[s.pool]))
        for s in forwarding.services
    }


def _text(*facts: object) -> bytes:
    return json.dumps(facts, separators=(",", ":")).encode()
