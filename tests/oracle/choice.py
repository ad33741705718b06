"""Which backend, over which next hop, a packet of a flow belongs to. docs/architecture.md."""

from ipaddress import ip_address

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from lbfwd.forwarding import Forwarding, Member, PathSpec, ServiceState
from tests.oracle import maglev, siphash

PROTOCOLS = {"tcp": 6, "udp": 17}


def _service(
    forwarding: Forwarding, vip: siphash.IPAddress, protocol: str, port: int
) -> ServiceState:
    for wanted in (port, 0):
        for service in forwarding.services:
            if (service.vip, service.protocol, service.port) == (vip, protocol, wanted):
                return service
    raise LookupError(f"no service for {vip} {protocol} {port}")


class Chooser:
    """Computes each pool's table once."""

    def __init__(self, forwarding: Forwarding) -> None:
        self._forwarding = forwarding
        self._tables: dict[str, list[str | None]] = {}

    def choose(self, frame: bytes) -> tuple[ServiceState, Member, PathSpec]:
        """The service, backend and next hop of an Ethernet frame with TCP or UDP in it."""
        packet = Ether(frame)
        ip = packet[IP] if IP in packet else packet[IPv6]
        protocol, transport = ("tcp", packet[TCP]) if TCP in packet else ("udp", packet[UDP])
        source, vip = ip_address(ip.src), ip_address(ip.dst)
        service = _service(self._forwarding, vip, protocol, transport.dport)
        key = (
            siphash.source_key(source, vip)
            if service.affinity == "source"
            else siphash.flow_key(
                source, vip, transport.sport, transport.dport, PROTOCOLS[protocol]
            )
        )
        affinity_hash = siphash.flow_hash(key, self._forwarding.hash_key)
        member = self._member(service, affinity_hash)
        return service, member, member.paths[siphash.path(affinity_hash, len(member.paths))]

    def _member(self, service: ServiceState, affinity_hash: int) -> Member:
        pool = next(p for p in self._forwarding.pools if p.name == service.pool)
        if pool.name not in self._tables:
            # A backend that cannot be reached takes no part.
            weights = {m.name: m.weight if m.paths else 0 for m in pool.members}
            self._tables[pool.name] = maglev.table(weights, pool.table_size)
        name = self._tables[pool.name][siphash.bucket(affinity_hash, pool.table_size)]
        return next(m for m in pool.members if m.name == name)
