"""Several nodes that are asked at once: which took a packet, and whether they agree.

client c0 ──── router ──┬── lb1        The router spreads flows to the VIP over both nodes
                        ├── lb2        (multipath, by ports too); the backends' addresses
                        └── farm       are all at one host, where nobody listens.
"""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from lbfwd.api.client import request
from lbfwd.demo.lab import Host, Lab, eventually
from tests.topology.node.stage import HASH_KEY, START_S, Node
from tests.topology.node.test_trace import allowed

pytestmark = pytest.mark.topology

VIP, CLIENT = "192.0.2.10", "198.51.100.2"
BACKENDS = ("10.3.0.11", "10.3.0.12", "10.3.0.13")
NODES = {"lb1": "10.1.0.2", "lb2": "10.2.0.2"}


def config(name: str, backends: tuple[str, ...] = BACKENDS) -> str:
    rows = ", ".join(f'{{ address = "{address}" }}' for address in backends)
    return f"""
hash_key = "{HASH_KEY}"
[node]
name = "{name}"
interfaces = ["eth0"]
[workers]
cpus = [0]
tx_ring_frames = 256
[metrics]
listen = "0.0.0.0:9108"
[[pool]]
name = "web"
table_size = 251
backends = [{rows}]
[[service]]
name = "web"
vip = "{VIP}"
protocol = "tcp"
port = 80
pool = "web"
"""


@dataclass(frozen=True)
class Fleet:
    client: Host
    router: Host
    nodes: dict[str, Node]

    def trace(self, port: int, *words: str) -> "subprocess.CompletedProcess[str]":
        """Ask both nodes from the client, once they let it."""
        nodes = [word for address in NODES.values() for word in ("--node", address)]
        flow = ["tcp", f"{CLIENT}:{port}", f"{VIP}:80"]
        here = ["--runtime-dir", "/nonexistent"]
        command = [*self.nodes["lb1"].command("trace", *flow, *nodes, *words)[:-2], *here]
        return allowed(self.client.argv(command))

    def forwarded(self) -> dict[str, int]:
        """Packets by node."""
        sockets = {name: node.runtime / "admin.sock" for name, node in self.nodes.items()}
        said = {name: json.loads(request(s, "GET", "/v1/status")) for name, s in sockets.items()}
        return {name: status["services"][0]["packets"] for name, status in said.items()}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Lab() as lab:
        router = lab.host("router")
        router.sysctl(
            ipv4__ip_forward=1, ipv4__fib_multipath_hash_policy=1,
            ipv4__conf__all__rp_filter=0, ipv4__conf__default__rp_filter=0,
        )  # fmt: skip
        client = joined(lab, router, "client", f"{CLIENT}/24", "198.51.100.1")
        farm = joined(lab, router, "farm", "10.3.0.2/24", "10.3.0.1")
        for address in BACKENDS:
            farm.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
        hosts = {
            name: joined(lab, router, name, f"{address}/24", f"{address[:-1]}1")
            for name, address in NODES.items()
        }
        hops = [word for address in NODES.values() for word in ("nexthop", "via", address)]
        router.run("ip", "route", "add", VIP, *hops)
        nodes = {n: Node(h, tmp_path_factory.mktemp(n), config(n)) for n, h in hosts.items()}
        for node in nodes.values():
            node.ready().until(lambda s: all(b["usable"] for b in s["pools"][0]["backends"]), "up")
        yield Fleet(client, router, nodes)


def joined(lab: Lab, router: Host, name: str, address: str, gateway: str) -> Host:
    """A host with the router as its way to everywhere."""
    host = lab.host(name)
    prefix = address.partition("/")[2]
    lab.link(host, "eth0", [address], router, f"to-{name}", [f"{gateway}/{prefix}"])
    host.run("ip", "route", "add", "default", "via", gateway)
    return host


def seen(fleet: Fleet, port: int) -> str:
    """Who took the packet: exactly one, as it was foretold."""
    before = fleet.forwarded()
    done = fleet.trace(port, "--live", "--wait", "0.4", "--json")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    body = json.loads(done.stdout)
    (took,) = (node for node in body["nodes"] if node["packet"])
    name = str(took["trace"]["node"])
    assert took["packet"]["backend"] == took["trace"]["backend"]["name"]
    assert took["place"] == f"{NODES[name]} port 9108"
    alone = before | {name: before[name] + 1}
    eventually(lambda: fleet.forwarded() == alone, START_S, f"{name} alone counts the packet")
    return name


def test_exactly_the_node_that_the_router_chose_takes_it(fleet: Fleet) -> None:
    for name, address in NODES.items():
        port = next(port for port in range(4000, 4100) if way(fleet, port) == address)
        assert seen(fleet, port) == name


def way(fleet: Fleet, port: int) -> str:
    """What the router itself says of the flow."""
    words = f"to {VIP} from {CLIENT} iif to-client ipproto tcp sport {port} dport 80".split()
    (route,) = json.loads(fleet.router.run("ip", "-j", "route", "get", *words))
    return str(route["gateway"])


def test_nodes_of_one_configuration_agree_and_of_two_do_not(fleet: Fleet) -> None:
    port, backend = 5000, BACKENDS[0]
    while chosen(fleet, port) != backend:
        port += 1
    done = fleet.trace(port)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("\nthe nodes agree\n")
    lb2 = fleet.nodes["lb2"]
    assert lb2.reload(config("lb2", BACKENDS[1:])).returncode == 0
    try:
        done = fleet.trace(port)
        told = fleet.trace(port, "--json")
    finally:
        assert lb2.reload(config("lb2")).returncode == 0
    assert (done.returncode, done.stderr, told.returncode) == (1, "", 1)
    end = done.stdout.partition("\nthe nodes do not agree\n")[2].splitlines()
    body = json.loads(told.stdout)
    prints = [node["trace"]["service"]["fingerprint"] for node in body["nodes"]]
    assert prints[0] != prints[1]
    assert (body["agree"], body["differences"]) == (False, end)
    assert end[0] == f"fingerprint: lb1 {prints[0]}, lb2 {prints[1]}"
    assert end[1].startswith(f"backend: lb1 web/{backend} ({backend}), lb2 web/10.3.0.1")
    assert fleet.trace(port).returncode == 0, "and agree again"


def chosen(fleet: Fleet, port: int) -> str:
    status: Any = json.loads(fleet.trace(port, "--json").stdout)
    (name,) = {node["trace"]["backend"]["name"] for node in status["nodes"]}
    return str(name)
