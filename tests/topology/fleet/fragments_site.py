"""Nodes behind a router that gives later fragments to another node than first ones.

client c0 ── r0 router ─┬─ r1 ── n0 lb1 10.1.0.1, fd00:1::1
198.51.100.2 … .9       ├─ r2 ── n0 lb2 10.2.0.1, fd00:2::1
2001:db8:c::2 … ::9     ├─ r3 ── n0 lb3 10.3.0.1, fd00:3::1 (perhaps)
                        └─ r9 ── f0 farm 10.9.0.1, fd00:9::1: ``lbfwd backend`` and an echo server

As a router does whose hash takes in ports where there are any: first fragments, and whole packets,
go to lb1, later fragments to the last node. ``EcmpSite``: as Linux does, which takes no ports of
fragments; with another farm at r8.
"""

import json
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from bench.failover.text import ECHO, VIPS
from lbfwd.demo.lab import Host, Lab, eventually
from tests.topology.node.stage import HASH_KEY, START_S, Node
from tests.topology.node.wires import inside

CLIENTS = range(2, 10)
BYTES = 4000
WAIT_S = 5.0  # for an answer that does not come
ROOM_BYTES = 8 << 20
SO_RCVBUFFORCE = 33

CONFIG = """
hash_key = "{key}"
[node]
name = "{name}"
interfaces = ["n0"]
[workers]
cpus = [0, 1]
rx_ring_mib = 1
flows = 1024
tx_ring_frames = 256
[metrics]
listen = "{api}"
[fleet]
fragments = "{fragments}"
nodes = [{nodes}]
[[pool]]
name = "web"
table_size = 251
backends = [{backends}]
[[service]]
vip = "{vip4}"
protocol = "udp"
pool = "web"
[[service]]
vip = "{vip6}"
protocol = "udp"
pool = "web"
"""

# What leaves to which of two nodes.
WAYS = """
table inet ways {
  counter whole1 {}
  counter whole2 {}
  counter fragment1 {}
  counter fragment2 {}
  map node { type ifname : verdict; elements = { "r1" : jump first, "r2" : jump second } }
  chain first {
    ip frag-off & 0x3fff != 0 counter name fragment1 return
    exthdr frag exists counter name fragment1 return
    counter name whole1
  }
  chain second {
    ip frag-off & 0x3fff != 0 counter name fragment2 return
    exthdr frag exists counter name fragment2 return
    counter name whole2
  }
  chain leaving {
    type filter hook postrouting priority 0;
    iifname "r0" meta l4proto { udp, ipv6-frag } oifname vmap @node
  }
}
"""

# First fragments have offset 0, as whole packets do.
MARKS = """
table inet astray {
  chain first {
    type filter hook prerouting priority mangle;
    iifname "r0" ip frag-off & 0x1fff != 0 meta mark set 2
    iifname "r0" frag frag-off != 0 meta mark set 2
  }
}
"""


class Site:
    """The namespaces of the picture above. The router's links carry 1,600 bytes, but for r0."""

    FARMS: Sequence[int] = (9,)

    def __init__(self, lab: Lab, directory: Path, count: int, fragments: str) -> None:
        self.directory, self.names = directory, [f"lb{n}" for n in range(1, count + 1)]
        self.router, self.client = lab.host("router"), lab.host("client")
        self.router.sysctl(
            ipv4__ip_forward=1,
            ipv6__conf__all__forwarding=1,
            ipv4__conf__all__rp_filter=0,
            ipv4__conf__default__rp_filter=0,
        )
        own4 = [f"198.51.100.{n}/24" for n in CLIENTS]
        own6 = [f"2001:db8:c::{n}/64" for n in CLIENTS]
        lab.link(
            self.client, "c0", [*own4, *own6],
            self.router, "r0", ["198.51.100.1/24", "2001:db8:c::1/64"],
        )  # fmt: skip
        self._leave(self.client, "198.51.100.1", "2001:db8:c::1")
        self.farms = {n: self._place(lab, f"farm{n}", "f0", n) for n in self.FARMS}
        self._hosts = {
            name: self._place(lab, name, "n0", n) for n, name in enumerate(self.names, 1)
        }
        self._spread(count)
        for number, farm in self.farms.items():
            self._serve(number, farm)
        self.nodes = {name: self.start(name, fragments) for name in self.names}
        for node in self.nodes.values():
            node.ready()

    def _place(self, lab: Lab, name: str, interface: str, number: int) -> Host:
        host = lab.host(name)
        host.sysctl(ipv4__conf__all__rp_filter=0, ipv4__conf__default__rp_filter=0)
        lab.link(
            host, interface, [f"10.{number}.0.1/24", f"fd00:{number}::1/64"],
            self.router, f"r{number}", [f"10.{number}.0.254/24", f"fd00:{number}::fe/64"],
            mtu=1600,
        )  # fmt: skip
        self._leave(host, f"10.{number}.0.254", f"fd00:{number}::fe")
        return host

    @staticmethod
    def _leave(host: Host, *gateways: str) -> None:
        for gateway in gateways:
            host.run("ip", "route", "add", "default", "via", gateway)

    def _spread(self, count: int) -> None:
        self.router.run("nft", "-f", "-", stdin=MARKS)
        for version, node in ((4, "10.{}.0.1"), (6, "fd00:{}::1")):
            vip = VIPS[0] if version == 4 else VIPS[1]
            family = f"-{version}"
            self.router.run("ip", family, "rule", "add", "fwmark", "2", "lookup", "102")
            self.router.run("ip", family, "route", "add", vip, "via", node.format(1))
            to_last = (vip, "via", node.format(count), "table", "102")
            self.router.run("ip", family, "route", "add", *to_last)

    def _serve(self, number: int, farm: Host) -> None:
        for gateway in (
            f"10.{number}.0.254",
            f"fd00:{number}::fe",
        ):  # what it answers takes r0, too
            farm.run("ip", "route", "change", "default", "via", gateway, "mtu", "1500")
        vips = [word for vip in VIPS for word in ("--vip", vip)]
        nodes = [word for n in range(1, len(self.names) + 1) for word in ("--node", f"10.{n}.0.1")]
        log = self.directory / f"farm{number}.log"
        with log.open("w") as file:
            kit = (
                sys.executable,
                "-m",
                "lbfwd.cli.main",
                "backend",
                *vips,
                *nodes,
                "--mtu",
                "1600",
            )
            farm.start(*kit, stdout=file, stderr=file)
            eventually(lambda: "backend_ready" in log.read_text(), START_S, "backend")
            farm.start(sys.executable, "-m", "bench.failover.echo", stdout=file, stderr=file)
        eventually(lambda: "echo_ready" in log.read_text(), START_S, "echo server")

    def start(self, name: str, fragments: str) -> Node:
        directory = self.directory / name
        directory.mkdir(exist_ok=True)
        return Node(self._hosts[name], directory, self.config(name, fragments))

    def config(self, name: str, fragments: str) -> str:
        entries = (
            f'{{ name = "{other}", addresses = ["10.{n}.0.1", "fd00:{n}::1"], '
            f'api = "10.{n}.0.1:9108" }}'
            for n, other in enumerate(self.names, 1)
        )
        return CONFIG.format(
            key=HASH_KEY,
            name=name,
            api=f"10.{name[2:]}.0.1:9108",
            fragments=fragments,
            nodes=", ".join(entries),
            backends=", ".join(f'{{ address = "10.{n}.0.1" }}' for n in self.FARMS),
            vip4=VIPS[0],
            vip6=VIPS[1],
        )

    def agree(self, live: Sequence[str], on: Sequence[str] | None = None) -> None:
        """Wait until these nodes (all) give fragments to the live ones, and to no others."""
        for name in on or self.names:
            self.nodes[name].until(
                lambda s: {p["name"] for p in s["peers"] if p["live"]} == set(live),
                f"{name} gives fragments to {live}",
            )

    def drops(self) -> dict[str, dict[str, int]]:
        """By node: what was not forwarded, but for what is 0."""
        return {
            name: {reason: n for reason, n in node.status()["drops"].items() if n}
            for name, node in self.nodes.items()
            if node.process.poll() is None
        }

    def exchange(self, vip: str, rounds: int = 5, wait_s: float = WAIT_S) -> int:
        """Send large datagrams from all clients' addresses; returns how many did not come back."""
        turns = range(rounds)
        sent = {(n, turn): bytes([n, turn]) * (BYTES // 2) for n in CLIENTS for turn in turns}
        sockets = {n: self.socket(vip, n) for n in CLIENTS}
        for turn in turns:
            for n, sock in sockets.items():
                sock.sendto(sent[n, turn], (vip, ECHO))
        lost = 0
        for n, sock in sockets.items():
            with sock:
                sock.settimeout(wait_s)
                lost += missing(sock, {sent[n, turn] for turn in turns})
        return lost

    def socket(self, vip: str, number: int) -> socket.socket:
        """Return a socket of a client's address."""
        prefix = "2001:db8:c::" if ":" in vip else "198.51.100."
        return inside(self.client, lambda: _socket(f"{prefix}{number}"))


class EcmpSite(Site):
    """The router's own multipath routes spread the packets over two nodes."""

    FARMS = (9, 8)

    def _spread(self, count: int) -> None:
        self.router.sysctl(ipv4__fib_multipath_hash_policy=1, ipv6__fib_multipath_hash_policy=1)
        for vip, node in zip(VIPS, ("10.{}.0.1", "fd00:{}::1"), strict=True):
            hops = [w for n in range(1, count + 1) for w in ("nexthop", "via", node.format(n))]
            self.router.run("ip", "route", "add", vip, *hops)
        self.router.run("nft", "-f", "-", stdin=WAYS)

    def ways(self) -> set[str]:
        """Return what went where since the last time: ``whole1``, ``fragment2`` …"""
        listing = json.loads(self.router.run("nft", "-j", "reset", "counters"))["nftables"]
        counters = [item["counter"] for item in listing if "counter" in item]
        return {counter["name"] for counter in counters if counter["packets"]}

    def received(self) -> dict[int, int]:
        """Count the datagrams that each farm's sockets were given, of both families."""
        return {number: _datagrams(farm) for number, farm in self.farms.items()}


def _datagrams(host: Host) -> int:
    lines = host.run("cat", "/proc/net/snmp", "/proc/net/snmp6").splitlines()
    names, values = (line.split() for line in lines if line.startswith("Udp:"))
    counts = dict(zip(names, values, strict=True))
    counts |= dict(line.split() for line in lines if line.startswith("Udp6InDatagrams"))
    return int(counts["InDatagrams"]) + int(counts["Udp6InDatagrams"])


def _socket(source: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, ROOM_BYTES)
    sock.bind((source, 0))
    return sock


def missing(sock: socket.socket, awaited: set[bytes]) -> int:
    """Wait for datagrams; returns how many have not come within the socket's time."""
    while awaited:
        try:
            awaited.discard(sock.recv(65536))
        except TimeoutError:
            break
    return len(awaited)


S = TypeVar("S", bound=Site)


@contextmanager
def fragments_site(directory: Path, count: int = 2, kind: type[S] = Site) -> Iterator[S]:
    """A site whose logs are shown when the test fails."""
    try:
        with Lab() as lab:
            site = kind(lab, directory, count, "peer")
            yield site
            for node in 2 * [*site.nodes.values()]:  # told twice, it does not wait
                node.process.terminate()
    except BaseException:
        for log in (*directory.glob("*/log"), *directory.glob("farm*.log")):
            print(log, log.read_text(), sep="\n")  # noqa: T201 - pytest shows it
        raise


def total(drops: dict[str, dict[str, int]], reason: str) -> int:
    """Count a reason over all nodes."""
    return sum(found.get(reason, 0) for found in drops.values())
