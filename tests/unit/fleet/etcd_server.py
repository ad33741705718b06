"""A real etcd-server on this machine's loopback, in the network namespace of whoever starts it."""

import json
import shutil
import socket
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from lbfwd.demo.lab import eventually


def require_etcd() -> None:
    if not shutil.which("etcd"):
        pytest.skip("needs etcd (Debian: etcd-server)")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class EtcdServer:
    """One member of a cluster. ``options``: what it is started with besides, at each start."""

    def __init__(self, directory: Path, name: str = "one", scheme: str = "http") -> None:
        self.name = name
        self.peer = f"http://127.0.0.1:{free_port()}"
        self.endpoint = f"{scheme}://127.0.0.1:{free_port()}"
        self.options: Sequence[str] = ()
        self.tls: ssl.SSLContext | None = None
        self.cluster = f"{name}={self.peer}"
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        log = (self._directory / f"{self.name}.log").open("ab")
        with log:
            self._process = subprocess.Popen(self._command(), stdout=log, stderr=log)

    def _command(self) -> list[str]:
        return [
            "etcd",
            *("--name", self.name, "--data-dir", str(self._directory / self.name)),
            *("--listen-client-urls", self.endpoint, "--advertise-client-urls", self.endpoint),
            *("--listen-peer-urls", self.peer, "--initial-advertise-peer-urls", self.peer),
            *("--initial-cluster", self.cluster, "--log-level", "error"),
            *("--heartbeat-interval", "20", "--election-timeout", "200"),
            *self.options,
        ]

    def serves(self) -> bool:
        """Whether it has a leader and answers. Over HTTP only."""
        return bool(self.ask("/v3/kv/range", {"key": "AA=="}, refused_is_none=True))

    def ask(self, path: str, body: object, *, refused_is_none: bool = False) -> object:
        """Ask it without the client under test."""
        request = urllib.request.Request(self.endpoint + path, json.dumps(body).encode())
        try:
            with urllib.request.urlopen(request, timeout=5, context=self.tls) as answer:
                return json.loads(answer.read())
        except (urllib.error.URLError, OSError):
            if refused_is_none:
                return None
            raise

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def forget(self) -> None:
        """Lose the data of a member that is not running."""
        shutil.rmtree(self._directory / self.name)

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid


@contextmanager
def etcd(directory: Path, certificate: ssl.SSLContext | None = None) -> Iterator[EtcdServer]:
    """One etcd that serves.

    ``certificate``: over TLS, by ``cert.pem`` and ``key.pem`` of the directory, which clients must
    have, too; this shows it.
    """
    require_etcd()
    server = EtcdServer(directory, scheme="https" if certificate else "http")
    if certificate:
        cert, key = str(directory / "cert.pem"), str(directory / "key.pem")
        own = ("--cert-file", cert, "--key-file", key)
        server.options = (*own, "--client-cert-auth", "--trusted-ca-file", cert)
        server.tls = certificate
    try:
        server.start()
        eventually(server.serves, 20, "etcd serves")
        yield server
    finally:
        server.kill()


@contextmanager
def cluster(directory: Path, size: int = 3) -> Iterator[list[EtcdServer]]:
    """A cluster that serves."""
    require_etcd()
    members = [EtcdServer(directory, f"m{n}") for n in range(size)]
    try:
        for member in members:
            member.cluster = ",".join(f"{m.name}={m.peer}" for m in members)
            member.start()
        for member in members:
            eventually(member.serves, 20, f"{member.name} serves")
        yield members
    finally:
        for member in members:
            member.kill()
