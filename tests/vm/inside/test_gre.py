"""The kernel's own GRE devices on the backends, and IPVS as a peer of lbfwd.

client ── router ─┬─ node       lbfwd
                  ├─ director   IPVS with mh and GRE tunnels: the same VIPs, the same backends
                  └─ a, b, c    lbfwd backend, nginx
"""

import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbfwd.demo.lab import Host, Lab
from lbfwd.demo.topology import NODE, PLACES, VIPS
from tests.topology.node.site import Site, url
from tests.topology.node.wires import inside

pytestmark = pytest.mark.topology

DIRECTOR = {4: "10.0.9.2", 6: "2001:db8:f9::2"}
PORTS = range(40001, 40013)
UPLOAD_BYTES = 3_000_000
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Lab() as lab:
        more = [word for address in DIRECTOR.values() for word in ("--node", address)]
        made = Site(lab, tmp_path_factory.mktemp("site"), kit=more)
        made.node.file.chmod(0o600)
        yield made


@pytest.fixture(scope="module")
def director(site: Site) -> Host:
    lab, router = site.node.host._lab, site.network.router
    host = lab.host("director")
    lab.link(host, "eth0", [f"{DIRECTOR[4]}/24", f"{DIRECTOR[6]}/64"],
             router, "to-director", ["10.0.9.1/24", "2001:db8:f9::1/64"])  # fmt: skip
    for gateway in ("10.0.9.1", "2001:db8:f9::1"):
        host.run("ip", "route", "add", "default", "via", gateway)
    host.run("ipvsadm", "-R", stdin="\n".join(rules()))
    for vip in VIPS.values():
        host.run("ip", "address", "add", vip, "dev", "lo")
    return host


def rules() -> Iterator[str]:
    """What ipvsadm reads. mh-port: the source's port counts, too, as it does for lbfwd."""
    for vip in (VIPS[4], f"[{VIPS[6]}]"):
        yield f"-A -t {vip}:80 -s mh -b mh-port"
        for place in PLACES:
            address = place.address if place.family == 4 else f"[{place.address}]"
            yield f"-a -t {vip}:80 -r {address}:80 -i --tun-type gre"


def answers(site: Site, family: int) -> dict[int, str]:
    """Which backend answers each source port."""
    return inside(site.network.client, lambda: {port: ask(VIPS[family], port) for port in PORTS})


def ask(vip: str, port: int) -> str:
    with socket.create_connection((vip, 80), PATIENCE_S, ("", port)) as sock:
        # Reset at the end: nothing waits with the port, so that it can be used again at once.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.sendall(b"GET /name HTTP/1.0\r\n\r\n")
        answer = b"".join(iter(lambda: sock.recv(4096), b""))
    return answer.rpartition(b"\n")[2].decode()


def route(site: Site, to: dict[int, str]) -> None:
    for family, vip in VIPS.items():
        site.network.router.run("ip", "route", "replace", vip, "via", to[family])


def test_the_kernel_unwraps(site: Site) -> None:
    for place in PLACES:
        log = (site.backends[place.name].root / "log").read_text()
        (ready,) = (json.loads(line) for line in log.splitlines() if "backend_ready" in line)
        assert ready["devices"] == ["lbfwd-gre4", "lbfwd-gre6"], ready


def test_the_doctor_finds_nothing_broken(site: Site) -> None:
    hosts = {"node": site.network.node, "backend": site.network.backends["a"]}
    runtime = ["--runtime-dir", str(site.node.runtime)]
    looking = {
        role: subprocess.Popen(
            host.argv([sys.executable, "-m", "lbfwd.cli.main", "doctor", "--json",
                       *(runtime if role == "node" else [])]),
            stdout=subprocess.PIPE, text=True,
        )
        for role, host in hosts.items()
    }  # fmt: skip
    for role, process in looking.items():
        said = json.loads(process.communicate()[0])[role]
        assert [finding for finding in said if finding["level"] == "broken"] == []
        assert len(said) > 5


@pytest.mark.parametrize("family", [4, 6])
def test_http_and_an_upload(site: Site, family: int, tmp_path: Path) -> None:
    before = site.node.status()
    found = answers(site, family)
    assert set(found) == set(PORTS)
    assert set(found.values()) == {place.name for place in PLACES}
    assert answers(site, family) == found
    upload(site, family, tmp_path, "by-lbfwd")
    after = site.node.status()
    assert after["drops"] == before["drops"]
    assert sum(s["packets"] for s in after["services"]) > sum(
        s["packets"] for s in before["services"]
    )


@pytest.mark.parametrize("family", [4, 6])
def test_ipvs_serves_the_same_flows(
    site: Site, director: Host, family: int, tmp_path: Path
) -> None:
    route(site, DIRECTOR)
    try:
        node = site.node.status()["services"]
        found = answers(site, family)
        upload(site, family, tmp_path, "by-ipvs")
        assert set(found) == set(PORTS)
        assert set(found.values()) == {place.name for place in PLACES}
        assert site.node.status()["services"] == node, "lbfwd has no part in it"
        assert "-i" in director.run("ipvsadm", "-Sn")
    finally:
        route(site, NODE)


def upload(site: Site, family: int, directory: Path, name: str) -> None:
    """Put a file on a VIP, and compare it byte for byte with what a backend has."""
    data = os.urandom(UPLOAD_BYTES)
    file = directory / f"{name}{family}"
    file.write_bytes(data)
    site.network.client.run("curl", "-sS", "--fail", "--max-time", "120",
                            "-T", str(file), url(family, f"/{file.name}"))  # fmt: skip
    stored = [b.root / "files" / file.name for b in site.backends.values()]
    (found,) = (copy for copy in stored if copy.exists())
    assert found.read_bytes() == data
