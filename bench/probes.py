"""Health checks at their limit: 2,000 probes a second from one supervisor.

A real ``lbfwd run`` in a namespace watches 2,000 backends, each once a second, which are addresses
of one nginx in another namespace: directly, and at a VIP through the tunnel, which ``lbfwd
backend`` unwraps there. nginx counts the requests, the kernel there the connections of TCP probes.
Meanwhile the admin socket is asked for a resource that does not exist, which shows how long the
supervisor's event loop keeps a request waiting, and for the status. Each round does the same
without checks, too. nginx, the unwrapping and the supervisor share the machine's cores.

Needs root and nginx. ``python -m bench.probes [--rounds N] [--seconds S] [--out DIRECTORY]``
"""

import argparse
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from bench import nginx
from bench.measure import figure
from bench.node_run import Lbfwd
from bench.result import options, save
from bench.stream import quantile
from bench.target import at_least, at_most
from lbfwd.demo.lab import Host, Lab, eventually
from lbfwd.supervisor.runtime import ADMIN_SOCKET

BACKENDS = 2000
KINDS = {  # type, via
    "none": ("none", "direct"),
    "tcp": ("tcp", "direct"),
    "http": ("http", "direct"),
    "tcp, tunnel": ("tcp", "tunnel"),
    "http, tunnel": ("http", "tunnel"),
}
NODE, VIP = "10.0.0.1", "192.0.2.10"
FIRST = ip_address("10.1.0.1")
PORT, COUNTER_PORT = 8080, 8081
START_S = 60.0
PAUSE_S = 0.02  # between requests for nothing
STATUSES = 5
SMALL_NODE = """
hash_key = "000102030405060708090a0b0c0d0e0f"
[node]
name = "lb1"
interfaces = ["n0"]
[workers]
cpus = [0]
rx_ring_mib = 8
tx_ring_frames = 256
flows = 4096
[metrics]
listen = ""
"""
CONFIG = (
    SMALL_NODE
    + """
[[pool]]
name = "web"
backends = [{backends}]
[pool.health]
type = "{type}"
via = "{via}"
port = {port}
interval_ms = 1000
timeout_ms = 900
[[service]]
vip = "{vip}"
protocol = "tcp"
port = 80
pool = "web"
"""
)
NGINX = nginx.template(
    """
  server {{ listen {port} backlog=4096; location / {{ return 200 "well"; }} }}
  server {{ listen {counter}; location / {{ stub_status; }} }}""",
    connections=8192,
)


@dataclass(frozen=True)
class Round:
    """What one run gave. Latencies in milliseconds."""

    probes_s: float
    cpu: float
    """Of the supervisor: seconds a second."""
    wait_p50: float
    wait_p99: float
    wait_most: float
    status: float


class Run:
    """A node that watches so many backends, and the nginx that they all are."""

    def __init__(self, lab: Lab, directory: Path, kind: str) -> None:
        self._type, via = KINDS[kind]
        node, self._farm = lab.host("node"), lab.host("farm")
        lab.link(node, "n0", [f"{NODE}/24"], self._farm, "f0", ["10.0.0.2/24"])
        node.run("ip", "route", "add", "10.1.0.0/16", "via", "10.0.0.2")
        self._farm.run("ip", "route", "add", "local", "10.1.0.0/16", "dev", "lo")
        self._farm.sysctl(**{"core__somaxconn": 4096})
        self._serve(directory)
        if via == "tunnel":
            self._unwrap(directory)
        backends = ", ".join(f'{{ address = "{FIRST + n}" }}' for n in range(BACKENDS))
        check = {"type": self._type, "via": via, "port": PORT}
        self._lbfwd = Lbfwd(node, directory, CONFIG.format(backends=backends, vip=VIP, **check))
        eventually(self._lbfwd.has_come_up, START_S, "ready")

    def _serve(self, directory: Path) -> None:
        text = NGINX.format(root=directory, port=PORT, counter=COUNTER_PORT)
        nginx.start(self._farm, directory, text)
        eventually(lambda: f":{PORT}" in self._farm.run("ss", "-Hlnt"), START_S, "nginx")

    def _unwrap(self, directory: Path) -> None:
        log = directory / "backend.log"
        command = [sys.executable, "-m", "lbfwd.cli.main", "backend", "--vip", VIP, "--node", NODE]
        with log.open("w") as out:
            self._farm.start(*command, stdout=out, stderr=out)
        eventually(lambda: "backend_ready" in log.read_text(), START_S, "lbfwd backend")

    def probes(self) -> int:
        """Return how many have been made."""
        if self._type == "http":
            text = self._farm.run("curl", "-s", f"http://127.0.0.1:{COUNTER_PORT}/")
            return int(text.splitlines()[2].split()[2])
        return passive_opens(self._farm)

    def cpu_s(self) -> float:
        """Return the seconds of processor that the supervisor has used."""
        fields = Path(f"/proc/{self._lbfwd.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / 100  # USER_HZ

    def measure(self, seconds: float) -> Round:
        """Ask for nothing again and again, then for the status a few times."""
        probes = self.probes()
        begun, cpu = time.monotonic(), self.cpu_s()
        waits = []
        while time.monotonic() < begun + seconds:
            waits.append(self.latency_ms("/v1/nothing"))
            time.sleep(PAUSE_S)
        probes = self.probes() - probes  # to count takes as long both times
        passed, cpu = time.monotonic() - begun, self.cpu_s() - cpu
        waits.sort()
        return Round(
            probes_s=probes / passed,
            cpu=cpu / passed,
            wait_p50=quantile(waits, 0.5),
            wait_p99=quantile(waits, 0.99),
            wait_most=waits[-1],
            status=statistics.median(self.latency_ms("/v1/status") for _ in range(STATUSES)),
        )

    def latency_ms(self, resource: str) -> float:
        """Return how long the admin socket takes to answer, connection and all."""
        begun = time.perf_counter()
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(self._lbfwd.runtime / ADMIN_SOCKET))
            sock.sendall(f"GET {resource} HTTP/1.0\r\nHost: lbfwd\r\n\r\n".encode())
            while sock.recv(1 << 20):
                pass
        return (time.perf_counter() - begun) * 1000


def passive_opens(host: Host) -> int:
    """Return how many connections a host has accepted (RFC 4022, tcpPassiveOpens)."""
    names, values = [
        line.split() for line in host.run("cat", "/proc/net/snmp").splitlines() if "Tcp:" in line
    ]
    return int(dict(zip(names, values, strict=True))["PassiveOpens"])


@contextmanager
def running(kind: str) -> Iterator[Run]:
    """Have a node and its backends for a while."""
    with tempfile.TemporaryDirectory() as place, Lab() as lab:
        yield Run(lab, Path(place), kind)


def rounds(count: int, seconds: float) -> dict[str, list[Round]]:
    """Measure all kinds, interleaved."""
    found: dict[str, list[Round]] = {kind: [] for kind in KINDS}
    for _ in range(count):
        for kind in KINDS:
            with running(kind) as run:
                run.measure(min(seconds, 3.0))  # the first seconds spread the probes
                found[kind].append(run.measure(seconds))
                print(f"  {kind}: {found[kind][-1]}", flush=True)
    return found


def column(found: Sequence[Round], name: str) -> list[float]:
    """Return one figure of all rounds."""
    return [float(getattr(one, name)) for one in found]


def main() -> None:
    """Measure and save."""
    parser: argparse.ArgumentParser = options(__doc__, rounds=5)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each run")
    chosen = parser.parse_args()
    found = rounds(chosen.rounds, chosen.seconds)
    names = tuple(Round.__dataclass_fields__)
    figures = {
        kind: {name: figure(column(several, name)).plain() for name in names}
        for kind, several in found.items()
    }
    targets = []
    for kind in list(KINDS)[1:]:
        rate = [probes / BACKENDS for probes in column(found[kind], "probes_s")]
        targets.append(at_least(f"{kind}: probes made, of {BACKENDS} a second", 0.98, rate))
        waits = column(found[kind], "wait_p99")
        targets.append(at_most(f"{kind}: p99 of an admin request meanwhile (ms)", 50, waits))
    save("probes", chosen, {"backends": BACKENDS, "kinds": figures}, targets)


if __name__ == "__main__":
    main()
