"""Two nodes that share a configuration by a real etcd; the backends lie behind the hub.

lb1 n0 ──────── h1 hub h2 ──────── n0 lb2        etcd runs on the hub
10.1.0.1    10.1.0.254 10.2.0.254    10.2.0.1
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lbfwd.demo.lab import Lab, eventually
from tests.topology.node.stage import HASH_KEY, START_S, Node
from tests.unit.fleet.etcd_server import require_etcd

API = {"lb1": "10.1.0.1:9108", "lb2": "10.2.0.1:9108"}
GATEWAY = {"lb1": "10.1.0.254", "lb2": "10.2.0.254"}
NODES = ", ".join(f'{{ name = "{name}", api = "{api}" }}' for name, api in API.items())

OWN = """
hash_key = "{key}"
[node]
name = "{name}"
interfaces = ["n0"]
[workers]
cpus = [0]
rx_ring_mib = 1
flows = 1024
[metrics]
listen = "{api}"
[fleet]
nodes = [{nodes}]
[etcd]
endpoints = ["http://{gateway}:2379"]
"""
SHARED = """
[[pool]]
name = "web"
table_size = 251
backends = [{ name = "a", address = "10.9.0.1" }, { name = "b", address = "10.9.0.2" }]
[[service]]
name = "web"
vip = "192.0.2.10"
protocol = "tcp"
pool = "web"
"""


class Site:
    """The namespaces of the picture above, with etcd and both nodes."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.directory = directory
        self.hub = lab.host("hub")
        self.hub.sysctl(ipv4__ip_forward=1)
        self._hosts = {name: lab.host(name) for name in API}
        for name, host in self._hosts.items():
            host.sysctl(ipv6__conf__default__disable_ipv6=1)
            own = API[name].rpartition(":")[0]
            lab.link(host, "n0", [f"{own}/24"], self.hub, f"h{name[-1]}", [f"{GATEWAY[name]}/24"])
            host.run("ip", "route", "add", "default", "via", GATEWAY[name])
        self.start_etcd()
        self.nodes = {name: self.node(name) for name in API}
        for node in self.nodes.values():
            node.ready()

    def start_etcd(self) -> None:
        with (self.directory / "etcd.log").open("ab") as log:
            self._etcd: subprocess.Popen[Any] = self.hub.start(
                *("etcd", "--data-dir", str(self.directory / "etcd"), "--log-level", "error"),
                *("--heartbeat-interval", "20", "--election-timeout", "200"),
                *("--listen-client-urls", "http://0.0.0.0:2379"),
                *("--advertise-client-urls", "http://10.1.0.254:2379"),
                stdout=log,
                stderr=log,
            )
        eventually(lambda: self.etcd("range", {"key": "AA=="}), START_S, "etcd serves")

    def kill_etcd(self) -> None:
        self._etcd.kill()
        self._etcd.wait()

    def etcd(self, what: str, body: dict[str, str]) -> str:
        """Ask it without the client under test; empty: no answer."""
        url = f"http://127.0.0.1:2379/v3/kv/{what}"
        return self.hub.run("curl", "-sS", "-m", "5", url, "-d", json.dumps(body), check=False)

    def node(self, name: str) -> Node:
        directory = self.directory / name
        directory.mkdir(exist_ok=True)
        text = OWN.format(
            key=HASH_KEY, name=name, api=API[name], nodes=NODES, gateway=GATEWAY[name]
        )
        state = ("--state-dir", str(directory / "state"))
        return Node(self._hosts[name], directory, text, state)

    def restart(self, name: str) -> Node:
        """Start a node again that has ended, with a log of its own."""
        old = self.nodes[name]
        old.stop()
        old.log_file.unlink()
        self.nodes[name] = self.node(name)
        return self.nodes[name].ready()

    def push(self, text: str, *options: str) -> "subprocess.CompletedProcess[str]":
        file = self.directory / "shared.toml"
        file.write_text(text)
        config = str(self.nodes["lb1"].file)
        return self.lbfwd("lb1", "push", str(file), "-c", config, *options)

    def fleet(self) -> tuple[int, dict[str, Any]]:
        runtime = str(self.nodes["lb1"].runtime)
        done = self.lbfwd("lb1", "status", "--fleet", "--json", "--runtime-dir", runtime)
        answer: dict[str, Any] = json.loads(done.stdout)
        return done.returncode, answer

    def lbfwd(self, name: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        argv = self._hosts[name].argv([sys.executable, "-m", "lbfwd.cli.main", *arguments])
        return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)


@contextmanager
def shared_site(directory: Path) -> Iterator[Site]:
    """A site whose logs are shown when the test fails."""
    require_etcd()
    try:
        with Lab() as lab:
            yield Site(lab, directory)
    except BaseException:
        for log in (*directory.glob("*/log"), directory / "etcd.log"):
            if log.exists():
                print(log, log.read_text(), sep="\n")  # noqa: T201 - pytest shows it
        raise
