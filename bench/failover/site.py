"""A fleet behind a router that spreads packets over its nodes (ECMP), all in namespaces.

client eth0 ─ eth0 router eth1 ─ switch ─┬─ eth0 lb1 203.0.113.10, 2001:db8:1::10
198.51.100.2         │ to-a, to-b, to-c    ├─ eth0 lb2          .11             ::11
2001:db8:c::2        │                     └─ eth0 lb3          .12             ::12
                     └── a, b, c: nginx, an echo server and ``lbfwd backend``; 10.0.1.2 …

The switch keeps the router's link up when a node's goes down, so that only BGP or BFD can tell.
Router and nodes have the files of deploy/, but for names, addresses and how absence is noticed.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Self

from bench import nginx
from bench.failover.daemons import Bird, Detection, Frr
from bench.failover.node import FIRST, START_S, FleetNode
from bench.failover.text import BACKENDS, VIPS, web
from lbfwd.demo.lab import Host, Lab, LabError, eventually, stop

Router = Literal["bird", "frr"]
BFD = Detection()


class Site:
    """The hosts of the picture above, and what runs on them."""

    NODE: type[FleetNode] = FleetNode

    def __init__(
        self, lab: Lab, directory: Path, nodes: int, router: Router, detection: Detection
    ) -> None:
        """Start everything, and wait for nothing."""
        self.router, self.switch = lab.host("router"), lab.host("switch")
        self.client = lab.host("client")
        self._wire(lab)
        self._backends = [
            self._backend(lab, number, name, directory)
            for number, name in enumerate(BACKENDS, start=1)
        ]
        for backend in self._backends:
            backend.serve()
        self.nodes = [self._node(lab, n, directory, detection) for n in range(1, nodes + 1)]
        own = directory / "router"
        own.mkdir()
        if router == "bird":
            self.router.run("ip", "-6", "rule", "add", "priority", "32800", "lookup", "101")
            self.routing: Bird | Frr = Bird(self.router, "router-bird.conf", own, detection.bird())
        else:
            self.routing = Frr(self.router, "router-frr.conf", own, detection.frr())
        for node in self.nodes:
            node.start_routing()
            node.start()

    def _wire(self, lab: Lab) -> None:
        self.router.sysctl(
            ipv4__ip_forward=1,
            ipv6__conf__all__forwarding=1,
            ipv4__conf__all__rp_filter=0,
            ipv4__conf__default__rp_filter=0,
            ipv4__fib_multipath_hash_policy=1,
            ipv6__fib_multipath_hash_policy=1,
        )
        join(lab, self.client, self.router, "eth0", "198.51.100", "2001:db8:c")
        self.switch.run("ip", "link", "add", "br0", "type", "bridge")
        self.switch.run("ip", "link", "set", "br0", "up")
        lab.link(self.router, "eth1", ["203.0.113.1/24", "2001:db8:1::1/64"], self.switch, "s0", [])
        self.switch.run("ip", "link", "set", "s0", "master", "br0")

    def _node(self, lab: Lab, number: int, directory: Path, detection: Detection) -> FleetNode:
        host = lab.host(f"lb{number}")
        host.sysctl(ipv4__conf__all__rp_filter=0, ipv4__conf__default__rp_filter=0)
        lab.link(host, "eth0", [], self.switch, f"s{number}", [])
        self.switch.run("ip", "link", "set", f"s{number}", "master", "br0")
        node = self.NODE(host, number, directory, detection)
        node.plug()
        return node

    def _backend(self, lab: Lab, number: int, name: str, directory: Path) -> "Backend":
        host, root = lab.host(name), directory / name
        join(lab, host, self.router, f"to-{name}", f"10.0.{number}", f"2001:db8:f{number}")
        return Backend(host, name, root)

    def wait(self) -> None:
        """Wait until packets of both VIPs may go to every node. Raises LabError."""
        for backend in self._backends:
            backend.wait()
        for node in self.nodes:
            node.wait()
        self.until(len(self.nodes))

    def until(self, count: int) -> None:
        """Wait until the router spreads both VIPs over so many nodes. Raises LabError."""
        for vip in VIPS:
            eventually(
                lambda vip=vip: len(self.hops(vip)) == count,  # type: ignore[misc]
                START_S,
                f"the router sends {vip} to {count} nodes",
            )

    def hops(self, vip: str) -> list[str]:
        """Return the router's next hops to a VIP, as its kernel has them."""
        found: list[dict[str, Any]] = json.loads(
            self.router.run("ip", "-6" if ":" in vip else "-4", "-j", "route", "show", vip) or "[]"
        )
        hops = [hop for route in found for hop in route.get("nexthops", [route])]
        return sorted(hop["gateway"] for hop in hops if "gateway" in hop)


class Backend:
    """A server that answers for the VIPs: HTTP by nginx, and echo."""

    def __init__(self, host: Host, name: str, root: Path) -> None:
        """Start ``lbfwd backend``, and wait for nothing."""
        self._host, self._name, self._root = host, name, root
        root.mkdir(mode=0o777)
        vips = [word for vip in VIPS for word in ("--vip", vip)]
        nodes = [word for n in range(3) for word in ("--node", f"203.0.113.{FIRST + n}")]
        self._start(sys.executable, "-m", "lbfwd.cli.main", "backend", *vips, *nodes)

    def serve(self) -> None:
        """Start the servers, once the VIPs are there. Raises LabError."""
        self._until("backend_ready")
        nginx.start(self._host, self._root, web(self._name, self._root))
        self._start(sys.executable, "-m", "bench.failover.echo")

    def wait(self) -> None:
        """Wait until it serves. Raises LabError."""
        self._until("echo_ready")

    def _start(self, *command: str) -> None:
        with (self._root / "log").open("a") as log:
            self._host.start(*command, stdout=log, stderr=log)

    def _until(self, word: str) -> None:
        log = self._root / "log"
        eventually(lambda: word in log.read_text(), START_S, f"{self._name}: {word}")


def join(  # noqa: PLR0913, PLR0917 - both ends of a cable
    lab: Lab, host: Host, router: Host, name: str, prefix4: str, prefix6: str
) -> None:
    """Wire a host to the router, which is its way to everywhere."""
    mine = (f"{prefix4}.2/24", f"{prefix6}::2/64")
    lab.link(host, "eth0", mine, router, name, (f"{prefix4}.1/24", f"{prefix6}::1/64"))
    for gateway in (f"{prefix4}.1", f"{prefix6}::1"):
        host.run("ip", "route", "add", "default", "via", gateway)


class Clients:
    """The clients' process (client.py). A context manager: it ends, too."""

    def __init__(self, host: Host, connections: int, flows: int, rate: int) -> None:
        """Start it."""
        command = [sys.executable, "-m", "bench.failover.client"]
        self._process = host.start(
            *command, *map(str, (connections, flows, rate)),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._connections = connections

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        with self._process:  # closes the pipes and waits
            stop(self._process)

    def wait(self) -> None:
        """Wait until every connection is open and exchanges. Raises LabError."""

        def ready() -> bool:
            count = self.count()
            if count["broken"]:
                raise LabError(f"clients: {count['broken'][:3]}")
            return bool(count["connections"] == self._connections)

        eventually(ready, START_S, "all connections are open")

    def count(self) -> dict[str, Any]:
        """Return what was counted since the last time."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None  # noqa: PT018 - pipes, see above
        stdin.write("\n")
        stdin.flush()
        result: dict[str, Any] = json.loads(stdout.readline())
        return result


@contextmanager
def running(
    nodes: int = 2,
    router: Router = "bird",
    detection: Detection = BFD,
    kind: type[Site] = Site,
) -> Iterator[Site]:
    """Make a fleet whose nodes all announce both VIPs, and take it away. Raises LabError."""
    with tempfile.TemporaryDirectory(prefix="lbfwd-fleet-") as name, Lab() as lab:
        directory = Path(name)
        directory.chmod(0o755)  # FRR is another user
        site = kind(lab, directory, nodes, router, detection)
        try:
            site.wait()
            yield site
        except BaseException as error:
            for node in site.nodes:
                error.add_note(f"{node.name}: {node.log.read_text(encoding='utf-8')[-3000:]}")
            raise
        finally:
            for node in site.nodes:
                node.hurry()
