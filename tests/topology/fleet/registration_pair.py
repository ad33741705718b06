"""Two nodes behind a router that spreads connections over them, and backends that register at both.

client ── router ─┬─ lb1 10.0.0.2, 2001:db8:f0::2
                  ├─ lb2 10.0.9.2, 2001:db8:f9::2
                  └─ backends a 10.0.1.2, and c 2001:db8:f3::2     (lbfwd/demo/topology.py)
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lbfwd.demo.lab import Host, Lab
from lbfwd.demo.topology import NODE, PLACES, VIPS, build
from tests.topology.fleet.registration_site import (
    CONFIG,
    ETCD,
    HEALTH,
    LEASE_S,
    TOKEN,
    Backend,
    start_etcd,
)
from tests.topology.node.stage import Node
from tests.unit.fleet.etcd_server import require_etcd
from tests.unit.health.servers import certificate

ADDRESSES = {"lb1": NODE, "lb2": {4: "10.0.9.2", 6: "2001:db8:f9::2"}}
GATEWAYS = {4: "10.0.9.1", 6: "2001:db8:f9::1"}
ALLOWED = ('"10.0.1.0/24"', '"2001:db8:f3::/64", "10.0.1.0/24"')
HTTPS = """
[registration]
listen = "[{address}]:9443"
certificate_file = "cert.pem"
key_file = "key.pem"
"""
SIX = f"""
[[service]]
name = "web6"
vip = "{VIPS[6]}"
protocol = "tcp"
port = 80
pool = "web"
"""


class Pair:
    """``way``: by which backends register: ``https`` (over IPv6) or ``etcd``."""

    def __init__(self, lab: Lab, directory: Path, way: str) -> None:
        for parent in (directory, directory.parent):
            parent.chmod(0o755)
        self.directory, self.way, self.network = directory, way, build(lab)
        self._second(lab)
        self.token(directory)
        if way == "etcd":
            start_etcd(self.network.router, directory)
        places = {place.name: place for place in PLACES if place.name in "ac"}
        hosts = self.network.backends
        self.backends = {n: Backend(hosts[n], p, directory) for n, p in places.items()}
        self.nodes = {name: self._start(name) for name in ADDRESSES}
        for node in self.nodes.values():
            node.ready()
        together = b"".join(p.read_bytes() for p in directory.glob("lb?/cert.pem"))
        (directory / "ca.pem").write_bytes(together)

    def token(self, directory: Path) -> None:
        file = directory / "token"
        file.touch(mode=0o600)
        file.write_text(TOKEN)

    def join(self, name: str, *options: str) -> "subprocess.Popen[Any]":
        """Have a backend join by its own address, and unwrap packets in the same process."""
        backend = self.backends[name]
        family = backend.place.family
        given = [("--vip", vip) for vip in VIPS.values()]
        given += [("--node", address[family]) for address in ADDRESSES.values()]
        given += [
            *(("--pool", "web"), ("--name", name), ("--lease", str(LEASE_S)), ("--drain", "0")),
            ("--token-file", str(self.directory / "token")),
            ("--runtime-dir", str(backend.root / "run")),
        ]
        if self.way == "etcd":
            given += [("--etcd", ETCD)]
        else:
            given += [("--node", f"https://[{own[6]}]:9443") for own in ADDRESSES.values()]
            given += [("--ca-file", str(self.directory / "ca.pem"))]
            given += [("--address", backend.place.address)] if family == 4 else []
        return backend.start("join", *(word for pair in given for word in pair), *options)

    def _second(self, lab: Lab) -> None:
        """Wire a second node, and have the router spread connections."""
        router, host = self.network.router, lab.host("lb2")
        own, gateways = ADDRESSES["lb2"], GATEWAYS
        mine, theirs = ([f"{at[4]}/24", f"{at[6]}/64"] for at in (own, gateways))
        lab.link(host, "eth0", mine, router, "to-lb2", theirs)
        router.sysctl(ipv4__fib_multipath_hash_policy=1, ipv6__fib_multipath_hash_policy=1)
        for family, vip in VIPS.items():
            host.run("ip", "route", "add", "default", "via", gateways[family])
            hops = [w for at in ADDRESSES.values() for w in ("nexthop", "via", at[family])]
            router.run("ip", "route", "replace", vip, *hops)
        self.hosts: dict[str, Host] = {"lb1": self.network.node, "lb2": host}
        for each in self.hosts.values():
            each.sysctl(ipv4__conf__all__rp_filter=0, ipv4__conf__eth0__rp_filter=0)

    def _start(self, name: str) -> Node:
        directory, address = self.directory / name, ADDRESSES[name][6]
        directory.mkdir()
        certificate(directory, f"{name},IP:{address}")  # names are what stands behind "DNS:"
        self.token(directory)
        way = f'[etcd]\nendpoints = ["{ETCD}"]\n'
        if self.way == "https":
            way = HTTPS.format(address=address)
        text = CONFIG.replace('name = "lb1"', f'name = "{name}"').replace(*ALLOWED)
        text = text.replace("WAY", way).replace("HEALTH", HEALTH) + SIX
        state = ("--state-dir", str(directory / "state"))
        return Node(self.hosts[name], directory, text, state)


@contextmanager
def registration_pair(directory: Path, way: str) -> Iterator[Pair]:
    """A pair whose logs are shown when the test fails."""
    if way == "etcd":
        require_etcd()
    try:
        with Lab() as lab:
            yield Pair(lab, directory, way)
    except BaseException:
        for log in (*directory.glob("lb?/log"), *directory.glob("*/kit.log")):
            print(log, log.read_text(), sep="\n")  # noqa: T201 - pytest shows it
        raise
