"""Real clients and servers through a real node: nginx, curl, iperf3, UDP with segmentation offload.

The network is the demo's: client ── router ── node, and three backends behind the router that
answer the client directly. Offloads are on, as veth has them.
"""

import hashlib
import json
import os
import socket
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbfwd.demo.lab import Host, Lab, eventually
from lbfwd.demo.topology import NODE, PLACES, VIPS, Network, Place, build
from tests.topology.node.stage import HASH_KEY, START_S, Node
from tests.topology.node.wires import inside

pytestmark = pytest.mark.topology

UPLOAD_BYTES = 10_000_000
UDP_SEGMENT = 103
DATAGRAM = 1200
DATAGRAMS = 20

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

NGINX = """
daemon off;
worker_processes 1;
pid {root}/pid;
error_log {root}/error.log;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_max_body_size 64m;
  client_body_temp_path {root}/body;
  proxy_temp_path {root}/proxy;
  fastcgi_temp_path {root}/fastcgi;
  uwsgi_temp_path {root}/uwsgi;
  scgi_temp_path {root}/scgi;
  server {{
    listen 80;
    listen [::]:80;
    location = /name {{ return 200 "{name}"; }}
    location / {{ root {root}/files; dav_methods PUT; }}
  }}
}}
"""


class Backend:
    def __init__(self, host: Host, place: Place, directory: Path) -> None:
        self.root = directory / place.name
        (self.root / "files").mkdir(parents=True)
        # nginx' workers are another user, and pytest's folders are private.
        for folder in (self.root, self.root / "files"):
            folder.chmod(0o777)
        config = self.root / "nginx.conf"
        config.write_text("user root;" + NGINX.format(root=self.root, name=place.name))
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
            ]
            host.start(*kit, stdout=log, stderr=log)
            host.start("nginx", "-c", str(config), stdout=log, stderr=log)
            host.start("iperf3", "-s", stdout=log, stderr=log)
        self._host = host

    def wait(self) -> None:
        eventually(lambda: "backend_ready" in (self.root / "log").read_text(), START_S, "backend")
        eventually(lambda: "5201" in self._host.run("ss", "-Hlnt") and ":80 " in
                   self._host.run("ss", "-Hlnt"), START_S, "servers listen")  # fmt: skip


class Site:
    def __init__(self, lab: Lab, directory: Path, ring: str) -> None:
        self.network: Network = build(lab)
        self.backends = {
            p.name: Backend(self.network.backends[p.name], p, directory) for p in PLACES
        }
        self.node = Node(self.network.node, directory, CONFIG, ["--ring", ring]).ready()
        for backend in self.backends.values():
            backend.wait()
        self.node.until(
            lambda s: all(b["usable"] for p in s["pools"] for b in p["backends"]), "backends"
        )

    def curl(self, *arguments: str) -> str:
        return self.network.client.run("curl", "-sS", "--fail", "--max-time", "30", *arguments)


@pytest.fixture(scope="module", params=["v3", "v2"])
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("site")
    for parent in (directory, directory.parent):
        parent.chmod(0o755)
    with Lab() as lab:
        yield Site(lab, directory, request.param)


def url(family: int, path: str) -> str:
    return f"http://{VIPS[4]}{path}" if family == 4 else f"http://[{VIPS[6]}]{path}"


@pytest.mark.parametrize("family", [4, 6])
def test_requests_are_balanced_over_all_backends(site: Site, family: int) -> None:
    before = site.node.status()
    names = Counter(site.curl(url(family, "/name")) for _ in range(60))
    after = site.node.status()
    assert names.total() == 60
    assert set(names) == {place.name for place in PLACES}
    assert after["drops"] == before["drops"]
    seen = [a["seen"] - b["seen"] for a, b in zip(after["workers"], before["workers"], strict=True)]
    assert all(seen), "both workers carry load"


@pytest.mark.parametrize("family", [4, 6])
def test_upload_with_all_offloads_arrives_byte_for_byte(
    site: Site, family: int, tmp_path: Path
) -> None:
    data = os.urandom(UPLOAD_BYTES)
    (tmp_path / "data").write_bytes(data)
    before = site.node.status()
    name = f"upload{family}"
    site.curl("-T", str(tmp_path / "data"), url(family, f"/{name}"))
    stored = [b.root / "files" / name for b in site.backends.values()]
    found = [file for file in stored if file.exists()]
    assert len(found) == 1
    assert hashlib.sha256(found[0].read_bytes()).digest() == hashlib.sha256(data).digest()
    after = site.node.status()
    frames, packets = (
        sum(worker[key] for worker in after["workers"])
        - sum(worker[key] for worker in before["workers"])
        for key in ("frames", "seen")
    )
    assert packets > 2 * frames, "super-frames came and were segmented"
    assert after["drops"] == before["drops"]


@pytest.mark.parametrize("family", [4, 6])
def test_download_goes_straight_back(site: Site, family: int, tmp_path: Path) -> None:
    data = os.urandom(UPLOAD_BYTES)
    for backend in site.backends.values():
        (backend.root / "files" / "download").write_bytes(data)
    before = site.node.forwarded_bytes()
    site.curl("-o", str(tmp_path / "got"), url(family, "/download"))
    assert (tmp_path / "got").read_bytes() == data
    assert site.node.forwarded_bytes() - before < UPLOAD_BYTES / 10, "only acknowledgements"


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("reverse", [False, True])
def test_iperf3(site: Site, family: int, reverse: bool) -> None:
    command = ["iperf3", "-c", VIPS[family], "-n", "20M", "-J", *(["-R"] if reverse else [])]
    before = site.node.status()["drops"]
    result = json.loads(site.network.client.run(*command))
    # The receiver stops counting when the sender says that it is done, some packets early.
    assert result["end"]["sum_sent"]["bytes"] >= 20_000_000
    assert result["end"]["sum_received"]["bytes"] >= 10_000_000
    assert site.node.status()["drops"] == before


@pytest.mark.parametrize("family", [4, 6])
def test_udp_segmentation_offload(site: Site, family: int) -> None:
    """A burst of one datagram by name, many by content: UDP_SEGMENT (udp(7))."""
    kind = socket.AF_INET if family == 4 else socket.AF_INET6

    def receiver() -> socket.socket:
        sock = socket.socket(kind, socket.SOCK_DGRAM)
        sock.bind((VIPS[family], 4000))
        sock.settimeout(0.5)
        return sock

    receivers = [inside(host, receiver) for host in site.network.backends.values()]
    sender = inside(site.network.client, lambda: socket.socket(kind, socket.SOCK_DGRAM))
    before = site.node.status()
    sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, DATAGRAM)
    data = os.urandom(DATAGRAM * DATAGRAMS - 100)
    sender.sendto(data, (VIPS[family], 4000))
    got = [_all(sock) for sock in receivers]
    for sock in (*receivers, sender):
        sock.close()
    assert sorted(map(len, got)) == [0, 0, DATAGRAMS], "one flow, one backend"
    arrived = next(datagrams for datagrams in got if datagrams)
    assert b"".join(arrived) == data
    after = site.node.status()
    assert (
        sum(w["frames"] for w in after["workers"]) - sum(w["frames"] for w in before["workers"])
        == 1
    )


def _all(sock: socket.socket) -> list[bytes]:
    got = []
    while True:
        try:
            got.append(sock.recv(65536))
        except TimeoutError:
            return got
