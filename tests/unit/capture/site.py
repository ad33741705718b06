"""A node with two services in two pools, as its status tells."""

from ipaddress import ip_address

from scapy.layers.l2 import Ether

from lbfwd.supervisor.status import BackendStatus, PoolStatus, ServiceStatus, Status
from tests.unit.api import values

# Without addresses Scapy would ask the network for them.
ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
VIP4, VIP6 = ip_address("192.0.2.10"), ip_address("2001:db8::10")
WEB_A, WEB_B = ip_address("10.0.0.11"), ip_address("fd00::11")
DNS_A = ip_address("10.0.0.21")


def backend(name: str, address: object) -> BackendStatus:
    return values.backend(name, 100).model_copy(update={"address": address})


def service(name: str, vip: object, protocol: str, port: int | None, pool: str) -> ServiceStatus:
    fields = {"name": name, "vip": vip, "protocol": protocol, "port": port, "pool": pool}
    return values.status().services[0].model_copy(update=fields)


def status() -> Status:
    pools = (
        PoolStatus(name="web", table_size=251, backends=(backend("a", WEB_A), backend("b", WEB_B))),
        PoolStatus(name="dns", table_size=251, backends=(backend("a", DNS_A),)),
    )
    services = (
        service("web", VIP4, "tcp", 80, "web"),
        service("web-any", VIP4, "tcp", None, "web"),
        service("web6", VIP6, "tcp", 80, "web"),
        service("dns", VIP4, "udp", 53, "dns"),
    )
    drops = {"no_service": 0, "tx_ring_full": 0}
    fields = {"pools": pools, "services": services, "drops": drops}
    return values.status().model_copy(update=fields)
