"""The processes of the demo: lbfwd on the node, a backend kit and a web server on each backend."""

import json
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from lbfwd.api.client import ApiError, request
from lbfwd.demo.client import Answer, Transfer
from lbfwd.demo.lab import Host, LabError, eventually, stop
from lbfwd.demo.tally import Tally
from lbfwd.demo.topology import NODE, PORT, VIPS, Place
from lbfwd.supervisor.runtime import ADMIN_SOCKET, DEFAULT
from lbfwd.supervisor.status import Status

LBFWD = (sys.executable, "-m", "lbfwd.cli.main")
START_TIMEOUT_S = 20.0
LOG_LINES = 15


class Service:
    """A process of the demo with its log in a file."""

    def __init__(self, host: Host, log: Path, *command: str) -> None:
        """Start it."""
        self._log = log
        self._command = command
        with log.open("w") as file:
            self._process = host.start(*command, stdout=file, stderr=subprocess.STDOUT)

    def said(self, text: str) -> bool:
        """Tell whether the log holds a text. Raises LabError when the process has ended."""
        self.check()
        return text in self._log.read_text(encoding="utf-8")

    def check(self) -> None:
        """Raise LabError with the end of the log when the process has ended."""
        if self._process.poll() is not None:
            name = " ".join(self._command).replace(" ".join(LBFWD), "lbfwd")
            lines = self._log.read_text(encoding="utf-8").splitlines()[-LOG_LINES:]
            raise LabError("\n".join([f"{name}: exit {self._process.returncode}:", *lines]))

    def stop(self) -> int:
        """Stop it. Returns the exit status."""
        return stop(self._process)


class Backend:
    """A web server, and ``lbfwd backend`` that makes its machine a backend."""

    def __init__(self, host: Host, place: Place, directory: Path) -> None:
        """Start both; ``wait`` until they are ready."""
        log = directory / place.name
        server = (sys.executable, "-m", "lbfwd.demo.server", place.name)
        self._server = Service(host, log.with_suffix(".server.log"), *server)
        vips = [word for vip in VIPS.values() for word in ("--vip", vip)]
        kit = (*LBFWD, "backend", *vips, "--node", NODE[place.family])
        self._kit = Service(host, log.with_suffix(".backend.log"), *kit)
        self._host = host

    def wait(self) -> None:
        """Wait until the VIPs are there and the server answers. Raises LabError."""
        what = f"backend {self._host.name} is ready"
        eventually(lambda: self._kit.said("backend_ready"), START_TIMEOUT_S, what)
        eventually(self._listens, START_TIMEOUT_S, f"web server {self._host.name} listens")

    def stop(self) -> int:
        """Stop both; the VIPs go with the kit. Returns the kit's exit status."""
        status = self._kit.stop()
        self._server.stop()
        return status

    def _listens(self) -> bool:
        self._server.check()
        sockets = self._host.run("ss", "-Hlnt", "sport", "=", f":{PORT}")
        return len(sockets.splitlines()) == len(VIPS)


class Node:
    """``lbfwd run`` with a configuration that the demo changes."""

    def __init__(self, host: Host, directory: Path, cpus: Sequence[int]) -> None:
        """Prepare; ``start`` starts it."""
        self._host = host
        self._directory = directory
        self._config = directory / "lbfwd.toml"
        self._cpus = cpus
        self._hash_key = secrets.token_hex(16)

    def start(self, places: Collection[Place]) -> None:
        """Start and wait until every worker runs and every backend can be sent to."""
        self._write(places)
        command = (*LBFWD, "run", "-c", str(self._config))
        self._service = Service(self._host, self._directory / "node.log", *command)
        eventually(self._ready, START_TIMEOUT_S, "lbfwd forwards to every backend")

    def reload(self, places: Collection[Place]) -> None:
        """Let lbfwd use these backends only, by ``lbfwd reload``. Raises LabError."""
        self._write(places)
        self._host.run(*LBFWD, "reload")
        eventually(self._ready, START_TIMEOUT_S, "lbfwd forwards to every backend")

    def status(self) -> Status:
        """Ask the admin socket. Raises LabError."""
        try:
            return Status.model_validate_json(request(DEFAULT / ADMIN_SOCKET, "GET", "/v1/status"))
        except ApiError as error:
            self._service.check()
            raise LabError(str(error)) from error

    def stop(self) -> int:
        """Stop lbfwd. Returns its exit status."""
        return self._service.stop()

    def guard(self) -> str:
        """Return what is left of nftables rules on the node; empty when there are none."""
        return self._host.run("nft", "list", "ruleset").strip()

    def _ready(self) -> bool:
        self._service.check()
        try:
            status = self.status()
        except LabError:  # not yet; if never, the next look at the process tells
            return False
        running = all(worker.state == "running" for worker in status.workers)
        return running and all(b.usable for pool in status.pools for b in pool.backends)

    def _write(self, places: Collection[Place]) -> None:
        """Replace the configuration; only its owner may read it, since it holds the secret."""
        text = configuration(self._hash_key, self._cpus, places)
        aside = self._config.with_suffix(".new")
        aside.touch(mode=0o600)
        aside.write_text(text, encoding="utf-8")
        aside.replace(self._config)


def configuration(hash_key: str, cpus: Sequence[int], places: Collection[Place]) -> str:
    """Return the node's configuration, TOML."""
    backends = "\n".join(f'  {{ name = "{p.name}", address = "{p.address}" }},' for p in places)
    services = "\n".join(
        f'\n[[service]]\nname = "web-v{family}"\nvip = "{vip}"\nprotocol = "tcp"\n'
        f'port = {PORT}\npool = "web"'
        for family, vip in VIPS.items()
    )
    return f"""\
hash_key = "{hash_key}"

[node]
name = "demo"
interfaces = ["eth0"]

[workers]
cpus = {list(cpus)}
rx_ring_mib = 8

[[pool]]
name = "web"
backends = [
{backends}
]
{services}
"""


@contextmanager
def requests(client: Host, tally: Tally) -> Iterator[None]:
    """Let the client ask at a steady rate, and count its answers."""
    process = client.start(
        sys.executable, "-m", "lbfwd.demo.client", "requests", stdout=subprocess.PIPE, text=True
    )
    reader = threading.Thread(target=_count, args=(process.stdout, tally))
    reader.start()
    try:
        yield
    finally:
        stop(process)
        reader.join()


def _count(answers: IO[str], tally: Tally) -> None:
    with answers:
        for line in answers:
            tally.add(Answer(**json.loads(line)))
    tally.end()


def transfers(client: Host, direction: str) -> list[Transfer]:
    """Let the client do its large transfers in one direction. Raises LabError."""
    output = client.run(sys.executable, "-m", "lbfwd.demo.client", direction)
    return [Transfer(**json.loads(line)) for line in output.splitlines()]


def worker_cpus(wanted: int) -> list[int]:
    """Return up to so many of the cpus that this process may use."""
    return sorted(os.sched_getaffinity(0))[:wanted]
