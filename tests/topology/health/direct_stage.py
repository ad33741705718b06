"""The node's stage with a real nginx at each address of its farm, which is checked directly.

client c0 ── n0 node n1 ── f0 farm: 10.0.0.11 … .13 (nginx a, b, c on port 8080)
"""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench import nginx
from lbfwd.demo.lab import Lab, eventually, stop
from tests.topology.node.stage import FARM4, HASH_KEY, START_S, VIP4, Node, Stage

PORT = 8080
NAMES = dict(zip("abc", FARM4, strict=True))
INTERVAL_MS = 200

NGINX = nginx.template(
    """
  server {{
    listen {address}:{port};
    location = /health {{ return 200 "{name} is well"; }}
    location = /sick {{ return 503; }}
  }}""",
    main=nginx.SINGLE,
    connections=64,
)


def config(pool: str = "", health: str = "") -> str:
    """The node's configuration; keys to add to the pool and to its check."""
    backends = ", ".join(f'{{ name = "{n}", address = "{a}" }}' for n, a in NAMES.items())
    return f"""
hash_key = "{HASH_KEY}"
[node]
name = "lb1"
interfaces = ["n0"]
[workers]
cpus = [0]
tx_ring_frames = 256
rx_ring_mib = 8
flows = 4096
[metrics]
listen = ""
[[pool]]
name = "web"
table_size = 1009
backends = [{backends}]
{pool}
[pool.health]
type = "http"
via = "direct"
port = {PORT}
path = "/health"
body = "is well"
interval_ms = {INTERVAL_MS}
timeout_ms = 200
rise = 2
fall = 2
hold_down_s = 0
{health}
[[service]]
name = "web"
vip = "{VIP4}"
protocol = "udp"
pool = "web"
"""


class Farm:
    """The nginx of each backend."""

    def __init__(self, stage: Stage, directory: Path) -> None:
        self._stage = stage
        self._root = directory
        self.running: dict[str, subprocess.Popen[Any]] = {}
        for name in NAMES:
            self.start(name)

    def start(self, name: str) -> None:
        root = self._root / name
        root.mkdir(exist_ok=True)
        text = NGINX.format(root=root, name=name, address=NAMES[name], port=PORT)
        self.running[name] = nginx.start(self._stage.farm, root, text)
        listening = f"{NAMES[name]}:{PORT}"
        ss = ["ss", "-Hlnt"]
        eventually(lambda: listening in self._stage.farm.run(*ss), START_S, f"{name} listens")

    def stop(self, name: str) -> None:
        stop(self.running.pop(name))

    def freeze(self, name: str) -> None:
        """Have it accept connections (the kernel does) and answer nothing."""
        os.kill(self.running[name].pid, signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        os.kill(self.running[name].pid, signal.SIGCONT)


@contextmanager
def watched(directory: Path, text: str, sick: str = "") -> Iterator[tuple[Stage, Farm, Node]]:
    """A node that is ready and watches the farm; ``sick``: names that do not run at first."""
    directory.chmod(0o755)
    with Lab() as lab:
        stage = Stage(lab)
        farm = Farm(stage, directory)
        for name in sick:
            farm.stop(name)
        node = Node(stage.node, directory, text)
        try:
            with stage.sockets:
                yield stage, farm, node.ready()
        except BaseException:
            print(node.log_file.read_text())  # noqa: T201 - pytest shows it with the failure
            raise


def conditions(status: dict[str, Any], pool: str = "web") -> dict[str, str]:
    """The condition of each backend of a pool."""
    found = next(p for p in status["pools"] if p["name"] == pool)
    return {backend["name"]: backend["condition"] for backend in found["backends"]}


def of(status: dict[str, Any], name: str) -> dict[str, Any]:
    """One backend's row."""
    rows = [b for p in status["pools"] for b in p["backends"] if b["name"] == name]
    row: dict[str, Any] = rows[0]
    return row
