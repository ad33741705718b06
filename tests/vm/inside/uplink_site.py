"""A node with every kind of uplink, and backends made by the kit in deploy/backend.

client ── router ═══ e0          v100   a VLAN
             ╞══════ e1, e2      ab0    a bond, active-backup; the router's end is a bridge
             ╞══════ e3, e4      xor0   a bond, balance-xor, at both ends; x200 a VLAN on it
             ╘══════ e5, e6      ad0    a bond, 802.3ad (LACP), at both ends
             ├── a               GRE over IPv4
             └── b               GRE over IPv6

The node's own address, 203.0.113.10 and 2001:db8:1::10, is on its lo.
"""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lbfwd.demo.lab import Host, Lab, eventually
from tests.topology.node.stage import Node
from tests.topology.node.wires import inside

KIT = Path(__file__).parents[3] / "deploy/backend"
VIPS = {4: "192.0.2.10", 6: "2001:db8::10"}
NODE = {4: "203.0.113.10", 6: "2001:db8:1::10"}
BACKENDS = {"a": "10.0.1.2", "b": "2001:db8:f2::2"}
NETWORKS = {4: "10.0.1.0/24", 6: "2001:db8:f2::/64"}  # of the backends
PORT = 7
FLOWS = 16
WIRES = 7
WAIT_S = 20.0
PACE_S = 0.005
QUIET_S = 4.0
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


@dataclass(frozen=True)
class Uplink:
    """One way between router and node; ``number`` stands in its addresses."""

    device: str
    number: int

    def node(self, family: int) -> str:
        return f"10.9.{self.number}.2" if family == 4 else f"fd09:{self.number}::2"

    def router(self, family: int) -> str:
        return f"10.9.{self.number}.1" if family == 4 else f"fd09:{self.number}::1"


UPLINKS = {u.device: u for u in
           (Uplink("v100", 1), Uplink("ab0", 2), Uplink("xor0", 3), Uplink("x200", 4),
            Uplink("ad0", 5))}  # fmt: skip

CONFIG = f"""
hash_key = "000102030405060708090a0b0c0d0e0f"
[node]
name = "lb1"
interfaces = {list(UPLINKS)}
source = {list(NODE.values())}
[workers]
cpus = [0, 1]
rx_ring_mib = 4
tx_ring_frames = 512
flows = 10000
[[pool]]
name = "echo"
table_size = 251
backends = [
{"".join(f'  {{ name = "{n}", address = "{a}" }},{chr(10)}' for n, a in BACKENDS.items())}]
""" + "".join(
    f'[[service]]\nvip = "{vip}"\nprotocol = "{protocol}"\nport = {PORT}\npool = "echo"\n'
    for vip in VIPS.values()
    for protocol in ("tcp", "udp")
)


class Uplinks:
    """The hosts of the picture, ``lbfwd run`` on the node, echo servers on the backends."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        names = ("router", "client", "node", *BACKENDS)
        self.router, self.client, self.host, *backends = (lab.host(name) for name in names)
        self.backends = dict(zip(BACKENDS, backends, strict=True))
        for host in (self.router, *backends):
            host.sysctl(ipv4__ip_forward=1, ipv6__conf__all__forwarding=1,
                        ipv4__conf__all__rp_filter=0, ipv4__conf__default__rp_filter=0)  # fmt: skip
        self._attach(lab, self.client, "client", "198.51.100", "2001:db8:c:")
        for number, (name, host) in enumerate(self.backends.items(), 1):
            self._attach(lab, host, name, f"10.0.{number}", f"2001:db8:f{number}:")
        self._uplinks(lab)
        self.take("v100")
        for address in NODE.values():
            self.host.run("ip", "address", "add", address, "dev", "lo")
        self.node = Node(self.host, directory, CONFIG)
        self.node.file.chmod(0o600)
        for host in backends:
            host.run("env", f"GRE_ENV={KIT / 'gre.env'}", str(KIT / "gre.sh"), "up")
            host.run("nft", "-f", str(KIT / "nftables.nft"))
        self.servers = [Echo(host, family) for host in backends for family in VIPS]
        self.node.ready()

    def take(self, *uplinks: str) -> None:
        """Lead the VIPs over the first of these, and the node's way to the backends over all."""
        ways = [UPLINKS[name] for name in uplinks]
        for family, vip in VIPS.items():
            self.router.run("ip", "route", "replace", vip, "via", ways[0].node(family))
            self.router.run("ip", "route", "replace", NODE[family], "via", ways[0].node(family))
            hops = [f"nexthop via {way.router(family)} dev {way.device}" for way in ways]
            self.host.run("ip", "route", "replace", NETWORKS[family], *" ".join(hops).split())

    def hops(self) -> dict[str, list[dict[str, Any]]]:
        """Return the next hops to each backend, as the status has them."""
        (pool,) = self.node.status()["pools"]
        return {backend["name"]: backend["hops"] for backend in pool["backends"]}

    def wait_for_hops(self, *devices: str) -> None:
        wanted = sorted(devices)
        eventually(
            lambda: all(sorted(h["interface"] for h in hops) == wanted
                        for hops in self.hops().values()),
            WAIT_S, f"next hops by {', '.join(devices)}",
        )  # fmt: skip

    def _attach(self, lab: Lab, host: Host, name: str, four: str, six: str) -> None:
        mine, its = ([f"{four}.{n}/24", f"{six}:{n}/64"] for n in (2, 1))
        lab.link(host, "eth0", mine, self.router, f"to-{name}", its)
        for gateway in (f"{four}.1", f"{six}:1"):
            host.run("ip", "route", "add", "default", "via", gateway)

    def _uplinks(self, lab: Lab) -> None:
        for n in range(WIRES):
            lab.link(self.host, f"e{n}", [], self.router, f"r{n}", [])
        bond = "type bond mode {} miimon 20 xmit_hash_policy layer3+4"
        vlan = "link {} name {} type vlan id {}"
        for host, wire in ((self.host, "e"), (self.router, "r")):
            _add(host, vlan.format(f"{wire}0", "v100", 100))
            _add(host, "xor0 " + bond.format("balance-xor"), f"{wire}3", f"{wire}4")
            _add(host, vlan.format("xor0", "x200", 200))
            _add(host, "ad0 " + bond.format("802.3ad"), f"{wire}5", f"{wire}6")
        _add(self.host, "ab0 type bond mode active-backup miimon 20", "e1", "e2")
        _add(self.router, "ab0 type bridge", "r1", "r2")
        for uplink in UPLINKS.values():
            for host, end in ((self.host, uplink.node), (self.router, uplink.router)):
                for family, length in ((4, 24), (6, 64)):
                    address = f"{end(family)}/{length}"
                    host.run("ip", "address", "add", address, "dev", uplink.device)
        self.host.run("ip", "route", "add", "default", "via", UPLINKS["v100"].router(4))


def _add(host: Host, link: str, *members: str) -> None:
    """Make a device, put its members below it, and bring all of them up."""
    host.run("ip", "link", "add", *link.split())
    name = link.partition("name ")[2].partition(" ")[0] or link.partition(" ")[0]
    for member in members:
        host.run("ip", "link", "set", member, "down")
        host.run("ip", "link", "set", member, "master", name)
        host.run("ip", "link", "set", member, "up")
    host.run("ip", "link", "set", name, "up")


class Echo(threading.Thread):
    """Answers on a VIP: UDP datagrams by themselves; TCP by what it was sent, at the end."""

    def __init__(self, host: Host, family: int) -> None:
        super().__init__(daemon=True)
        self._datagrams = inside(host, lambda: _bound(family, socket.SOCK_DGRAM))
        self._listener = inside(host, lambda: _bound(family, socket.SOCK_STREAM))
        self._listener.listen()
        self._listener.settimeout(0.01)
        self._datagrams.settimeout(0.05)
        self._ended = threading.Event()
        self.start()

    def run(self) -> None:
        with self._datagrams, self._listener:
            while not self._ended.is_set():
                for serve in (self._datagram, self._connection):
                    try:
                        serve()
                    except TimeoutError:
                        continue

    def close(self) -> None:
        self._ended.set()
        self.join()

    def _datagram(self) -> None:
        data, source = self._datagrams.recvfrom(2048)
        self._datagrams.sendto(data, source)

    def _connection(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            connection.settimeout(60.0)
            data = b"".join(iter(lambda: connection.recv(65536), b""))
            connection.sendall(data)


def _bound(family: int, kind: int) -> socket.socket:
    sock = socket.socket(FAMILIES[family], kind)
    sock.bind((VIPS[family], PORT))
    return sock


class Traffic(threading.Thread):
    """Numbered datagrams of several flows of both families, and which of them came back."""

    def __init__(self, client: Host) -> None:
        super().__init__(daemon=True)
        self._flows = inside(client, lambda: [_flow(family) for family in VIPS
                                              for _ in range(FLOWS // 2)])  # fmt: skip
        self.sent: list[float] = []
        self._back: set[int] = set()
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.is_set():
            self.send(1)
            time.sleep(PACE_S)  # its rate

    def send(self, count: int) -> None:
        for _ in range(count):
            number = len(self.sent)
            self._flows[number % FLOWS].send(number.to_bytes(8, "big"))
            self.sent.append(time.monotonic())

    def lost(self) -> list[float]:
        """Return when those were sent that have not come back, as soon as nothing more comes."""
        missing = set(range(len(self.sent)))
        deadline = time.monotonic() + QUIET_S
        while (missing := missing - self._receive()) and time.monotonic() < deadline:
            time.sleep(0.05)  # between two looks
        return sorted(self.sent[number] for number in missing)

    def stop(self) -> None:
        self._ended.set()
        self.join()

    def close(self) -> None:
        for sock in self._flows:
            sock.close()

    def _receive(self) -> set[int]:
        for sock in self._flows:
            try:
                while True:
                    self._back.add(int.from_bytes(sock.recv(64, socket.MSG_DONTWAIT), "big"))
            except BlockingIOError:
                continue
        return self._back


def _flow(family: int) -> socket.socket:
    sock = socket.socket(FAMILIES[family], socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    sock.connect((VIPS[family], PORT))
    return sock


@contextmanager
def traffic(site: Uplinks) -> Iterator[Traffic]:
    found = Traffic(site.client)
    try:
        yield found
    finally:
        found.close()


def upload(client: Host, family: int, data: bytes) -> bytes:
    """Send this over TCP and return what comes back."""

    def exchange() -> bytes:
        with socket.create_connection((VIPS[family], PORT), 60.0) as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: sock.recv(65536), b""))

    return inside(client, exchange)


def link(host: Host, device: str) -> dict[str, Any]:
    (found,) = json.loads(host.run("ip", "-d", "-j", "-s", "link", "show", device))
    return dict(found)
