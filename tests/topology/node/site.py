"""The demo's network with nginx and iperf3 on its backends, and the real ``lbfwd run`` on its node.

client ── router ── node, and three backends behind the router that answer the client directly.
Two of them (a, b) have tunnels over IPv4, one (c) over IPv6.
"""

import hashlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import nginx
from lbfwd.demo.lab import Host, Lab, eventually
from lbfwd.demo.topology import NODE, PLACES, VIPS, Network, Place, build
from tests.topology.node.stage import HASH_KEY, START_S, Node

UPLOAD_BYTES = 10_000_000

CONFIG = f"""
hash_key = "{HASH_KEY}"
[node]
interfaces = ["eth0"]
[workers]
cpus = [0, 1]
[[pool]]
name = "web"
backends = [
{"".join(f'  {{ name = "{p.name}", address = "{p.address}" }},{chr(10)}' for p in PLACES)}]
""" + "".join(
    f"""
[[service]]
vip = "{vip}"
protocol = "tcp"
port = 80
pool = "web"
[[service]]
vip = "{vip}"
protocol = "udp"
pool = "web"
[[service]]
vip = "{vip}"
protocol = "tcp"
port = 5201
affinity = "source"
pool = "web"
"""
    for vip in VIPS.values()
)

NGINX = nginx.template(
    """
  server {{
    listen 80;
    listen [::]:80;
    location = /name {{ return 200 "{name}"; }}
    location / {{ root {root}/files; dav_methods PUT; }}
  }}""",
    http="client_max_body_size 64m;",
)


class Backend:
    def __init__(
        self, host: Host, place: Place, directory: Path, options: Sequence[str] = ()
    ) -> None:
        self.root = directory / place.name
        (self.root / "files").mkdir(parents=True)
        # nginx' workers are another user, and pytest's folders are private.
        for folder in (self.root, self.root / "files"):
            folder.chmod(0o777)
        log = (self.root / "log").open("w")
        with log:
            vips = [word for vip in VIPS.values() for word in ("--vip", vip)]
            kit = [
                sys.executable,
                "-m",
                "lbfwd.cli.main",
                "backend",
                *vips,
                "--node",
                NODE[place.family],
                *options,
            ]
            host.start(*kit, stdout=log, stderr=log)
            host.start("iperf3", "-s", stdout=log, stderr=log)
        text = "user root;" + NGINX.format(root=self.root, name=place.name)
        nginx.start(host, self.root, text)
        self._host = host

    def wait(self) -> None:
        eventually(lambda: "backend_ready" in (self.root / "log").read_text(), START_S, "backend")
        eventually(lambda: "5201" in self._host.run("ss", "-Hlnt") and ":80 " in
                   self._host.run("ss", "-Hlnt"), START_S, "servers listen")  # fmt: skip


class Site:
    """``kit``: options of ``lbfwd backend``; ``flags`` of ``lbfwd run``."""

    def __init__(
        self,
        lab: Lab,
        directory: Path,
        config: str = CONFIG,
        flags: Sequence[str] = (),
        kit: Sequence[str] = (),
    ) -> None:
        for parent in (directory, directory.parent):
            parent.chmod(0o755)
        self.network: Network = build(lab)
        self.backends = {
            p.name: Backend(self.network.backends[p.name], p, directory, kit) for p in PLACES
        }
        self.node = Node(self.network.node, directory, config, flags).ready()
        for backend in self.backends.values():
            backend.wait()
        self.node.until(
            lambda s: all(b["usable"] for p in s["pools"] for b in p["backends"]), "backends"
        )

    def upload(self, family: int, directory: Path, name: str) -> str:
        """Put a file on a VIP; returns which backend has got it, byte for byte."""
        data = os.urandom(UPLOAD_BYTES)
        (directory / name).write_bytes(data)
        self.curl("-T", str(directory / name), url(family, f"/{name}"))
        stored = {n: b.root / "files" / name for n, b in self.backends.items()}
        found = [n for n, file in stored.items() if file.exists()]
        assert len(found) == 1
        assert (
            hashlib.sha256(stored[found[0]].read_bytes()).digest() == hashlib.sha256(data).digest()
        )
        return found[0]

    def curl(self, *arguments: str) -> str:
        return self.network.client.run("curl", "-sS", "--fail", "--max-time", "30", *arguments)


def url(family: int, path: str) -> str:
    return f"http://{VIPS[4]}{path}" if family == 4 else f"http://[{VIPS[6]}]{path}"
