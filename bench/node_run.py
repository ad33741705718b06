"""The real ``lbfwd run`` on a host; on a stage: one TCP, one UDP service, twelve backends."""

import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.contestants import START_S, Contestant, Thread, end
from bench.frames import PORT, VIPS
from bench.rings import Rings
from bench.stage import BACKENDS, FORWARD_CPU, IN, Stage
from lbfwd.demo.lab import Host, LabError, eventually

HASH_KEY = "000102030405060708090a0b0c0d0e0f"
TABLE_SIZE = 65537
FLOWS = 2_097_152  # twice the flows of the largest scenario


def config(
    rings: Rings | None = None, cpus: Sequence[int] = (FORWARD_CPU,), flows: int = FLOWS
) -> str:
    """Return the configuration, TOML. Without metrics: nodes on one stage share its ports."""
    backends = "".join(f'  {{ address = "{address}" }},\n' for address in BACKENDS)
    services = "".join(
        f'[[service]]\nvip = "{vip}"\nprotocol = "{protocol}"\nport = {PORT}\npool = "web"\n'
        for vip in VIPS.values()
        for protocol in ("tcp", "udp")
    )
    return f"""
hash_key = "{HASH_KEY}"
[node]
interfaces = ["{IN}"]
[workers]
cpus = {list(cpus)}
flows = {flows}
{(rings or Rings()).toml()}
[metrics]
listen = ""
[[pool]]
name = "web"
table_size = {TABLE_SIZE}
backends = [
{backends}]
{services}"""


class Lbfwd:
    """``lbfwd run`` on a host."""

    def __init__(self, host: Host, directory: Path, text: str) -> None:
        """Start it with that configuration, and wait for nothing."""
        self._host = host
        own = Path(tempfile.mkdtemp(dir=directory))
        self.runtime, self._log, self._file = own / "run", own / "log", own / "lbfwd.toml"
        self.write(text)
        command = self._command("run", "-c", str(self._file), "--state-dir", str(own / "state"))
        with self._log.open("a", encoding="utf-8") as log:
            self.process = self._host.start(*command, stdout=log, stderr=log)

    def write(self, text: str) -> None:
        """Replace the configuration's file; nothing happens yet."""
        self._file.write_text(text, encoding="utf-8")

    def wait(self, timeout_s: float = START_S) -> None:
        """Wait until it is ready. Raises LabError with its log."""
        try:
            eventually(self.is_ready, timeout_s, "lbfwd is ready")
        except LabError as error:
            raise LabError(f"{error}\n{self._log.read_text(encoding='utf-8')}") from error

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return what its log has of an event."""
        lines = self._log.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines if f'"event": "{name}"' in line]

    def status(self) -> dict[str, Any]:
        """Return what ``lbfwd status --json`` says."""
        result: dict[str, Any] = json.loads(self._host.run(*self._command("status", "--json")))
        return result

    def _command(self, verb: str, *arguments: str) -> list[str]:
        python = [sys.executable, "-m", "lbfwd.cli.main", verb]
        return [*python, *arguments, "--runtime-dir", str(self.runtime)]

    def has_come_up(self) -> bool:
        """Return whether its log says that it is ready. Raises LabError when it has ended."""
        if self.process.poll() is not None:
            raise LabError("lbfwd has ended")
        return bool(self.events("ready"))

    def is_ready(self) -> bool:
        """Return whether it forwards to every backend. Raises LabError when it has ended."""
        if not self.has_come_up():
            return False
        pools = self.status()["pools"]
        return all(backend["usable"] for pool in pools for backend in pool["backends"])


class Node(Lbfwd):
    """The node of a stage."""

    def __init__(self, stage: Stage, directory: Path, text: str) -> None:
        """Start it with that configuration. Use ``running``."""
        super().__init__(stage.node, directory, text)

    def contestant(self, name: str = "lbfwd") -> Contestant:
        """Return it as one of several that are compared."""
        pids = [worker["pid"] for worker in self.status()["workers"]]
        return Contestant(name, tuple(Thread(pid, pid) for pid in pids), (self.process.pid,))


@contextmanager
def running(stage: Stage, directory: Path, text: str | None = None) -> Iterator[Node]:
    """Run lbfwd until the block ends; ``text``: its configuration."""
    node = Node(stage, directory, text or config())
    try:
        node.wait()
        yield node
    finally:
        end(node.process)
