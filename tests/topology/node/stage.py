"""One node between a client and a farm of backends, and the real ``lbfwd run`` on it.

client c0 ──────── n0 node n1 ──────── f0 farm
198.51.100.2    .1         10.0.0.1    10.0.0.11 … .13
2001:db8:c::2  ::1         fd00::1     fd00::11 … ::13

The client reaches the VIPs through the node's n0; GRE leaves by n1.
"""

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from lbfwd.demo.lab import Host, Lab, eventually
from tests.topology.node.wires import tap

HASH_KEY = "000102030405060708090a0b0c0d0e0f"
VIP4, VIP6 = "192.0.2.10", "2001:db8::10"
FARM4 = [f"10.0.0.{n}" for n in (11, 12, 13)]
FARM6 = [f"fd00::{n}" for n in (11, 12, 13)]
START_S = 20.0

CONFIG = f"""
hash_key = "{HASH_KEY}"
[node]
name = "lb1"
interfaces = ["n0"]
[workers]
cpus = [0, 1]
tx_ring_frames = 1024
[[pool]]
name = "four"
table_size = 251
backends = [{{ address = "10.0.0.11" }}, {{ address = "10.0.0.12" }}, {{ address = "10.0.0.13" }}]
[[pool]]
name = "six"
table_size = 251
backends = [{{ address = "fd00::11" }}, {{ address = "fd00::12" }}, {{ address = "fd00::13" }}]
[[service]]
name = "4in4"
vip = "{VIP4}"
protocol = "tcp"
pool = "four"
[[service]]
name = "4in6"
vip = "{VIP4}"
protocol = "udp"
pool = "six"
[[service]]
name = "6in4"
vip = "{VIP6}"
protocol = "tcp"
pool = "four"
[[service]]
name = "6in6"
vip = "{VIP6}"
protocol = "udp"
pool = "six"
"""


class Node:
    """The real ``lbfwd run`` in a namespace, and what it says."""

    def __init__(self, host: Host, directory: Path, config: str, flags: Sequence[str] = ()) -> None:
        self.host = host
        self.file = directory / "lbfwd.toml"
        self.runtime = directory / "run"
        self.log_file = directory / "log"
        self.file.write_text(config)
        with self.log_file.open("a") as log:
            self.process = host.start(
                *self.command("run", "-c", str(self.file), *flags), stdout=log, stderr=log
            )

    def command(self, verb: str, *arguments: str) -> list[str]:
        python = [sys.executable, "-m", "lbfwd.cli.main", verb]
        return [*python, *arguments, "--runtime-dir", str(self.runtime)]

    def log(self) -> list[dict[str, Any]]:
        """Return the log's events; a line that is no event counts as one named ``output``."""
        lines = self.log_file.read_text().splitlines()
        return [
            json.loads(x) if x.startswith("{") else {"event": "output", "text": x} for x in lines
        ]

    def events(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.log() if event["event"] == name]

    def ready(self) -> "Node":
        eventually(
            lambda: bool(self.events("ready")) or self.process.poll() is not None, START_S, "ready"
        )
        assert self.process.poll() is None, self.log_file.read_text()
        return self

    def status(self) -> dict[str, Any]:
        result: dict[str, Any] = json.loads(self.host.run(*self.command("status", "--json")))
        return result

    def reload(self, config: str) -> "subprocess.CompletedProcess[str]":
        self.file.write_text(config)
        argv = self.host.argv(self.command("reload"))
        return subprocess.run(argv, capture_output=True, text=True, check=False)

    def until(self, fact: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        """Wait for a fact about the status; returns the status that shows it."""
        last: list[dict[str, Any]] = []

        def look() -> bool:
            last.append(self.status())
            return fact(last[-1])

        eventually(look, START_S, what)
        return last[-1]

    def forwarded(self) -> int:
        return sum(service["packets"] for service in self.status()["services"])

    def forwarded_bytes(self) -> int:
        return sum(service["bytes"] for service in self.status()["services"])

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(START_S)


class Stage:
    """The namespaces of the picture above."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.client, self.node, self.farm = (lab.host(name) for name in ("client", "node", "farm"))
        for host in (self.client, self.node, self.farm):
            host.sysctl(ipv6__conf__default__router_solicitations=0)
        lab.link(
            self.client, "c0", ["198.51.100.2/24", "2001:db8:c::2/64"],
            self.node, "n0", ["198.51.100.1/24", "2001:db8:c::1/64"],
        )  # fmt: skip
        lab.link(
            self.node, "n1", ["10.0.0.1/24", "fd00::1/64"],
            self.farm, "f0", [*(f"{a}/24" for a in FARM4), *(f"{a}/64" for a in FARM6)],
        )  # fmt: skip
        self.client.run("ip", "route", "add", "default", "via", "198.51.100.1")
        self.client.run("ip", "-6", "route", "add", "default", "via", "2001:db8:c::1")

        self.sockets = ExitStack()

    def tap(self, host: Host, interface: str) -> socket.socket:
        """Open a packet socket that is closed with the stage."""
        return self.sockets.enter_context(tap(host, interface))

    def mac(self, host: Host, interface: str) -> str:
        text = host.run("ip", "-j", "link", "show", interface)
        return str(json.loads(text)[0]["address"])


@contextmanager
def running(
    directory: Path, config: str = CONFIG, flags: Sequence[str] = ()
) -> Iterator[tuple[Stage, Node]]:
    """A stage with a node that is ready; the node's log is shown when the test fails."""
    with Lab() as lab:
        stage = Stage(lab)
        node = Node(stage.node, directory, config, flags)
        try:
            with stage.sockets:
                yield stage, node.ready()
        except BaseException:
            print(node.log_file.read_text())  # noqa: T201 - pytest shows it with the failure
            raise
