"""A node of which nothing is to be complained, and parts of it that others can be made of."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network

from lbfwd import __version__
from lbfwd.config import Config, parse
from lbfwd.config.hardware import Hardware
from lbfwd.config.warn import LocalAddress
from lbfwd.doctor.facts import Host, Irq, NodeFacts, Offloads, Secret
from lbfwd.doctor.finding import Finding
from lbfwd.supervisor.status import HopStatus, RingStatus, Status
from tests.unit.api import values

VIP = ip_address("192.0.2.10")
TOML = """
hash_key = "000102030405060708090a0b0c0d0e0f"
[node]
interfaces = ["eth0"]
[workers]
cpus = [2, 3]
KEYS
[[pool]]
name = "web"
backends = [{ name = "a", address = "10.0.0.11" }, { name = "b", address = "10.0.0.12" }]
[pool.health]
type = "CHECK"
HEALTH
[[service]]
name = "web"
vip = "192.0.2.10"
protocol = "tcp"
port = 80
pool = "web"
"""


def config(keys: str = "", health: str = "", check: str = "tcp") -> Config:
    text = TOML.replace("KEYS", keys).replace("HEALTH", health).replace("CHECK", check)
    return parse(text, "lbfwd.toml")


def hop(**fields: object) -> HopStatus:
    return values.HOP.model_copy(update={"interface": "eth0", "mtu": 1500} | fields)


def status(**fields: object) -> Status:
    """A status without fault, but for these fields."""
    base = values.status()
    backends = tuple(
        values.backend(name, 100).model_copy(
            update={"address": ip_address(address), "hops": (hop(),), "condition": "up"}
        )
        for name, address in (("a", "10.0.0.11"), ("b", "10.0.0.12"))
    )
    service = base.services[0].model_copy(update={"vip": VIP, "port": 80, "protocol": "tcp"})
    worker = base.workers[0].model_copy(
        update={"rings": (RingStatus(interface="eth0", packets=9, drops=0, freezes=0),)}
    )
    interface = base.interfaces[0].model_copy(update={"carrier": True, "admits_all": False})
    good = {
        "version": __version__,
        "workers": (worker,),
        "interfaces": (interface,),
        "services": (service,),
        "pools": (base.pools[0].model_copy(update={"backends": backends}),),
    }
    return base.model_copy(update=good | fields)


def pool_with(**fields: object) -> Status:
    """A status whose backend ``a`` has these fields."""
    good = status()
    first, *others = good.pools[0].backends
    backends = (first.model_copy(update=fields), *others)
    return status(pools=(good.pools[0].model_copy(update={"backends": backends}),))


HOST = Host("6.18.5", synchronized=True, clocksource="tsc")
GOOD = NodeFacts(
    host=HOST,
    config_file="/etc/lbfwd/lbfwd.toml",
    config=config(),
    status=status(),
    later=status(),
    nics=("eth0",),
    offloads={"eth0": Offloads()},
    nic_drops={"eth0": 0},
    irqs={"eth0": (Irq(30, frozenset({2}), 5), Irq(31, frozenset({3}), 5))},
    hardware=Hardware(queues={"eth0": 2}),
    isolated=frozenset({2, 3}),
    local=(LocalAddress("eth0", ip_address("10.0.0.1"), ip_network("10.0.0.0/24")),),
    sysctls={"core/optmem_max": 1 << 20, "ipv4/neigh/default/gc_thresh3": 16384},
    secret=Secret("/etc/lbfwd/hash_key", 0o100600, 0),
    files_limit=65536,
)


def said(check: Callable[[NodeFacts], Iterator[Finding]], **facts: object) -> list[Finding]:
    """What a check says of the good node with these facts instead, its oks left out."""
    found = list(check(replace(GOOD, **facts)))  # type: ignore[arg-type]
    assert all(bool(f.why) == bool(f.fix) == (f.level != "ok") for f in found)
    return [finding for finding in found if finding.level != "ok"]
