"""Backends that register themselves at a real node; nginx and the real decapsulation on each.

client ── router ── node, and backends a, b (and c, which nobody allows in) behind the router. Over
HTTPS they register at the node; or all use an etcd that runs on the router.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lbfwd.demo.lab import Host, Lab, eventually
from lbfwd.demo.topology import NODE, PLACES, VIPS, Network, Place, build
from tests.topology.node.site import NGINX
from tests.topology.node.stage import HASH_KEY, START_S, Node
from tests.unit.fleet.etcd_server import require_etcd
from tests.unit.health.servers import certificate

TOKEN = "0123456789abcdef-web"
ETCD = "http://10.0.0.1:2379"
URL = "https://10.0.0.2:9443"
LEASE_S, HOLD_S = 2, 3
DOWNLOAD_BYTES = 2_000_000

CONFIG = f"""
hash_key = "{HASH_KEY}"
[node]
name = "lb1"
interfaces = ["eth0"]
[workers]
cpus = [0]
rx_ring_mib = 1
flows = 4096
[flows]
tcp_closing_s = 2
[metrics]
listen = ""
WAY
[[pool]]
name = "web"
table_size = 1009
backends = []
[pool.register]
allow = ["10.0.1.0/24", "10.0.2.0/24"]
token_file = "token"
hold_down_s = {HOLD_S}
HEALTH
[[service]]
name = "web"
vip = "{VIPS[4]}"
protocol = "tcp"
port = 80
pool = "web"
"""
HEALTH = """
[pool.health]
type = "http"
path = "/name"
interval_ms = 300
timeout_ms = 300
rise = 1
fall = 2
hold_down_s = 0
"""
HTTPS = """
[registration]
listen = "10.0.0.2:9443"
certificate_file = "cert.pem"
key_file = "key.pem"
"""


class Backend:
    """A host with nginx; ``join`` starts the command under test."""

    def __init__(self, host: Host, place: Place, directory: Path) -> None:
        self.host, self.place = host, place
        self.root = directory / place.name
        (self.root / "files").mkdir(parents=True)
        for folder in (self.root, self.root / "files"):
            folder.chmod(0o777)
        config = self.root / "nginx.conf"
        config.write_text("user root;" + NGINX.format(root=self.root, name=place.name))
        with (self.root / "nginx.log").open("w") as log:
            host.start("nginx", "-c", str(config), stdout=log, stderr=log)
        self.unwrap = ("--vip", VIPS[4], "--node", NODE[4])

    def start(self, *options: str) -> "subprocess.Popen[Any]":
        """Start ``lbfwd backend``; its log is ``kit.log``, anew."""
        with (self.root / "kit.log").open("w") as log:
            return self.host.start(*self._command(*options), stdout=log, stderr=log)

    def run(self, *options: str) -> "subprocess.CompletedProcess[str]":
        """Run ``lbfwd backend`` to its end."""
        argv = self.host.argv(self._command(*options))
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)

    def tell(self, action: str, *options: str) -> "subprocess.CompletedProcess[str]":
        return self.run(action, "--runtime-dir", str(self.root / "run"), *options)

    def log(self) -> str:
        return (self.root / "kit.log").read_text()

    def _command(self, *options: str) -> list[str]:
        return [sys.executable, "-m", "lbfwd.cli.main", "backend", *options]


class Download:
    """A download that takes more than three seconds."""

    def __init__(self, client: Host, name: str, output: Path) -> None:
        self._output = output
        with output.open("w") as file:
            self._curl = client.start(
                *("curl", "-sS", "--fail", "--limit-rate", "600k", "--max-time", "60"),
                *("-o", "/dev/null", "-w", "%{size_download}", f"http://{VIPS[4]}/{name}"),
                stdout=file, stderr=file,
            )  # fmt: skip

    def is_whole(self, longest_s: float = 30.0) -> bool:
        """Wait until it has ended; tells whether nothing is missing."""
        self._curl.wait(longest_s)
        return self._output.read_text() == str(DOWNLOAD_BYTES)


class Site:
    """``way``: by which backends register: ``https`` or ``etcd``."""

    def __init__(self, lab: Lab, directory: Path, way: str, health: str) -> None:
        self._health = health
        for parent in (directory, directory.parent):
            parent.chmod(0o755)
        self.directory, self.way = directory, way
        self.network: Network = build(lab)
        # A new namespace takes over the machine's rp_filter.
        self.network.node.sysctl(ipv4__conf__all__rp_filter=0, ipv4__conf__eth0__rp_filter=0)
        certificate(directory, "lb1,IP:10.0.0.2")  # names are what stands behind "DNS:"
        (directory / "token").write_text(TOKEN)
        (directory / "token").chmod(0o600)
        if way == "etcd":
            self.etcd = start_etcd(self.network.router, directory)
        self.backends = {
            p.name: Backend(self.network.backends[p.name], p, directory) for p in PLACES
        }
        self.node = self.start_node()

    def start_node(self) -> Node:
        way = HTTPS if self.way == "https" else f'[etcd]\nendpoints = ["{ETCD}"]\n'
        config = CONFIG.replace("WAY", way).replace("HEALTH", self._health)
        # Pools are shared where etcd is: the backends' pool is pushed, or stands in the file.
        state = ("--state-dir", str(self.directory / "state"))
        return Node(self.network.node, self.directory, config, state).ready()

    def options(self, name: str, /, token: str = "token", **other: str) -> list[str]:
        """Return what ``join`` is told; ``other`` replaces or adds options."""
        backend = self.backends[name]
        said = {
            "pool": "web",
            "name": name,
            "lease": str(LEASE_S),
            "drain": "0",
            "address": backend.place.address,
            "token_file": str(self.directory / token),
            "runtime_dir": str(backend.root / "run"),
            **other,
        }
        words = [w for key, value in said.items() for w in (f"--{key.replace('_', '-')}", value)]
        if self.way == "etcd":
            return [*words, "--etcd", ETCD]
        return [*words, "--node", URL, "--ca-file", str(self.directory / "cert.pem")]

    def join(self, name: str, *options: str) -> "subprocess.Popen[Any]":
        """Have a backend join, and unwrap packets in the same process."""
        backend = self.backends[name]
        return backend.start("join", *backend.unwrap, *self.options(name), *options)

    def join_beside(self, name: str) -> "subprocess.Popen[Any]":
        """Have a backend join, where another process unwraps packets."""
        return self.backends[name].start("join", *self.options(name))

    def backend(self, name: str) -> dict[str, Any]:
        return backend_at(self.node, name)

    def until(self, name: str, condition: str, longest_s: float = START_S) -> dict[str, Any]:
        return until(self.node, name, condition, longest_s)

    def names(self, count: int = 24) -> set[str]:
        return names(self.network.client, VIPS[4], count)

    def download(self, name: str) -> "Download":
        return download(self.network.client, self.backends, self.directory, name)

    def kept(self) -> list[str]:
        document = json.loads((self.directory / "state" / "registrations.json").read_text())
        return [row["name"] for row in document["registrations"]]


def backend_at(node: Node, name: str) -> dict[str, Any]:
    """Return a backend's status; empty: it is not in the pool."""
    (pool,) = node.status()["pools"]
    return next((b for b in pool["backends"] if b["name"] == name), {})


def until(node: Node, name: str, condition: str, longest_s: float = START_S) -> dict[str, Any]:
    """Wait for a backend's condition; empty: until it is not in the pool any more."""

    def so() -> bool:
        found.append(backend_at(node, name))
        return found[-1].get("condition", "") == condition

    found: list[dict[str, Any]] = []
    eventually(so, longest_s, f"{name} is {condition or 'gone from the pool'}")
    return found[-1]


def names(client: Host, vip: str, count: int) -> set[str]:
    """Return which backends answer new connections."""
    fetch = ("curl", "-sS", "--max-time", "5", f"http://{vip}/name")
    return {client.run(*fetch) for _ in range(count)}


def download(
    client: Host, backends: Mapping[str, Backend], directory: Path, name: str
) -> "Download":
    """Begin a long download of a file that every backend has."""
    for backend in backends.values():
        (backend.root / "files" / name).write_bytes(bytes(DOWNLOAD_BYTES))
    return Download(client, name, directory / f"{name}.size")


def start_etcd(router: Host, directory: Path) -> "subprocess.Popen[Any]":
    """Start an etcd, and wait until it serves."""
    with (directory / "etcd.log").open("w") as log:
        etcd = router.start(
            *("etcd", "--data-dir", str(directory / "etcd"), "--log-level", "error"),
            *("--heartbeat-interval", "20", "--election-timeout", "200"),
            *("--listen-client-urls", "http://0.0.0.0:2379"),
            *("--advertise-client-urls", ETCD),
            stdout=log, stderr=log,
        )  # fmt: skip
    ask = ("curl", "-sS", "-m", "2", f"{ETCD}/v3/kv/range", "-d", '{"key":"AA=="}')
    eventually(lambda: router.run(*ask, check=False), START_S, "etcd serves")
    return etcd


def kill(process: "subprocess.Popen[Any]") -> None:
    """End a process without a chance to say good-bye: ``ip netns exec`` has become it."""
    process.send_signal(signal.SIGKILL)
    process.wait()


@contextmanager
def registration_site(directory: Path, way: str, health: str = HEALTH) -> Iterator[Site]:
    """A site whose logs are shown when the test fails."""
    if way == "etcd":
        require_etcd()
    try:
        with Lab() as lab:
            yield Site(lab, directory, way, health)
    except BaseException:
        for log in (directory / "log", *directory.glob("*/kit.log"), directory / "etcd.log"):
            if log.exists():
                print(log, log.read_text(), sep="\n")  # noqa: T201 - pytest shows it
        raise
