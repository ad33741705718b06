"""Packets larger than the tunnel: real clients learn its MTU, fragments arrive whole.

The backends announce an MSS for a path of 9,000 bytes, so that nothing but path MTU discovery
keeps clients from sending packets of 1,500 bytes, which no tunnel here takes (1,476 or 1,456).
"""

import json
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

import pytest

from lbfwd.demo.lab import Lab, eventually
from lbfwd.demo.topology import NODE, PLACES, VIPS, Place
from tests.topology.node.site import CONFIG, Site
from tests.topology.node.stage import START_S
from tests.topology.node.wires import inside

pytestmark = pytest.mark.topology

OVERHEAD = {4: 24, 6: 44}  # RFC 2784: outer IP and 4 bytes of GRE
KIT = ["--mtu", "9000"]
BY_NAME = {place.name: place for place in PLACES}
IPERF_PORT = 5202
# Control connection and datagrams of a client are to meet at one backend.
IPERF = "".join(
    f"""
[[service]]
vip = "{vip}"
protocol = "{protocol}"
port = {IPERF_PORT}
affinity = "source"
pool = "web"
"""
    for vip in VIPS.values()
    for protocol in ("tcp", "udp")
)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with site_of(tmp_path, CONFIG + IPERF) as site:
        yield site


@contextmanager
def site_of(directory: Path, config: str) -> Iterator[Site]:
    with Lab() as lab:
        site = Site(lab, directory, config, kit=KIT)
        try:
            yield site
        except BaseException:
            print(site.node.log_file.read_text())  # noqa: T201 - pytest shows it with the failure
            raise


def only(place: Place) -> str:
    """The configuration with one backend, the same pool for both VIPs."""
    backends = re.search(r"backends = \[.*?\n\]", CONFIG, re.DOTALL)
    assert backends
    line = f'backends = [{{ name = "{place.name}", address = "{place.address}" }}]'
    return CONFIG.replace(backends[0], line)


def learned_mtu(site: Site, family: int) -> int:
    """What the client's route cache says; 0: nothing."""
    (route,) = json.loads(site.network.client.run("ip", "-j", "route", "get", VIPS[family]))
    return sum(metric.get("mtu", 0) for metric in route.get("metrics", []))


@pytest.mark.parametrize("family", [4, 6])
def test_a_client_learns_the_mtu_of_the_tunnel(site: Site, family: int, tmp_path: Path) -> None:
    assert learned_mtu(site, family) == 0
    name = site.upload(family, tmp_path, f"upload{family}")
    assert learned_mtu(site, family) == 1500 - OVERHEAD[BY_NAME[name].family]
    status = site.node.status()
    assert status["events"]["too_big_sent"] > 0
    assert set(drops(status)) == {"too_big"}


def drops(status: dict[str, Any]) -> dict[str, int]:
    return {reason: count for reason, count in status["drops"].items() if count}


@pytest.mark.parametrize("family", [4, 6])
def test_fragmented_datagrams_arrive_whole(site: Site, family: int) -> None:
    """4,000 bytes a datagram: IPv4 fragments of 1,500 bytes are fragmented again."""
    start_iperf3(site, family)
    client = site.network.client
    command = ["iperf3", "-c", VIPS[family], "-p", str(IPERF_PORT), "-u", "-l", "4000", "-J"]
    if family == 6:  # fragments cannot be fragmented again: the client learns, and repeats
        client.run(*command, "-n", "20000")
        assert learned_mtu(site, family) in {1500 - overhead for overhead in OVERHEAD.values()}
    before = site.node.status()
    output = client.run(*command, "-b", "4M", "-n", "1000000")
    result = json.loads(output)["end"]["sum"]
    assert (result["packets"], result["lost_packets"]) == (250, 0)
    after = site.node.status()
    assert after["drops"] == before["drops"]
    split = after["events"]["packet_split"] - before["events"]["packet_split"]
    # Of 4,008 bytes: two fragments with 1,480, the rest is small enough.
    assert split >= 500 if family == 4 else split == 0


def start_iperf3(site: Site, family: int) -> None:
    """Start servers that answer from the VIP: a wildcard UDP socket would answer from eth0's."""
    for host in site.network.backends.values():
        host.start("iperf3", "-s", "-B", VIPS[family], "-p", str(IPERF_PORT), stdout=DEVNULL)
    for host in site.network.backends.values():
        eventually(
            lambda h=host: f":{IPERF_PORT} " in h.run("ss", "-Hlnt"),  # type: ignore[misc]
            START_S,
            "iperf3 listens",
        )


def narrow(site: Site, place: Place, mtu: int) -> None:
    """Make the cable between router and backend narrower."""
    for host, name in (
        (site.network.router, f"to-{place.name}"),
        (site.network.backends[place.name], "eth0"),
    ):
        host.run("ip", "link", "set", name, "mtu", str(mtu))


def path_mtu(status: dict[str, Any], name: str) -> int:
    (hop,) = (
        hop
        for pool in status["pools"]
        for backend in pool["backends"]
        if backend["name"] == name
        for hop in backend["hops"]
    )
    return int(hop["mtu"])


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("c", 6),
        pytest.param("a", 4, marks=pytest.mark.slow),
        pytest.param("a", 6, marks=pytest.mark.slow),
        pytest.param("c", 4, marks=pytest.mark.slow),
    ],
)
def test_the_path_mtu_of_a_tunnel_is_learned(name: str, family: int, tmp_path: Path) -> None:
    """client ── router ── node;  router ──(1,400)── backend: the node's own link has 1,500."""
    place = BY_NAME[name]
    with site_of(tmp_path, only(place)) as site:
        narrow(site, place, 1400)
        assert path_mtu(site.node.status(), name) == 1500
        assert site.upload(family, tmp_path, "upload") == name
        assert path_mtu(site.node.status(), name) == 1400
        assert learned_mtu(site, family) == 1400 - OVERHEAD[place.family]
        assert queued_gre(site, place.family) < 4096, "errors do not pile up"


@pytest.mark.parametrize("name", ["a", "c"])
def test_without_df_a_narrow_path_is_the_routers_matter(name: str, tmp_path: Path) -> None:
    place = BY_NAME[name]
    config = only(place).replace("[node]", "[node]\nouter_df = false")
    with site_of(tmp_path, config) as site:
        narrow(site, place, 1400)
        site.upload(4, tmp_path, "upload")
        # IPv6 routers never fragment: there nothing changes.
        expected = 1500 if place.family == 4 else 1400
        assert path_mtu(site.node.status(), name) == expected
        assert learned_mtu(site, 4) == expected - OVERHEAD[place.family]


def test_a_route_s_mtu_is_taken_up(site: Site) -> None:
    site.network.node.run("ip", "route", "add", "10.0.1.0/24", "via", "10.0.0.1", "mtu", "1300")
    site.node.until(lambda s: path_mtu(s, "a") == 1300, "the route's MTU is in force")
    site.network.node.run("ip", "route", "delete", "10.0.1.0/24")
    site.node.until(lambda s: path_mtu(s, "a") == 1500, "it is gone with its route")


@pytest.mark.parametrize("family", [4, 6])
def test_tracepath_finds_the_tunnel_s_mtu_and_the_end(site: Site, family: int) -> None:
    output = site.network.client.run("tracepath", "-n", VIPS[family])
    found = {1500 - overhead for overhead in OVERHEAD.values()}
    resume = re.search(r"Resume: pmtu (\d+) hops (\d+)", output)
    assert resume, output
    assert int(resume[1]) in found
    assert "reached" in output


def queued_gre(site: Site, family: int) -> int:
    """Bytes that wait at the node's raw GRE socket."""
    table = {4: "raw", 6: "raw6"}[family]
    lines = site.network.node.run("cat", f"/proc/net/{table}").splitlines()[1:]
    (row,) = (row for row in map(str.split, lines) if row[1].endswith(f":{socket.IPPROTO_GRE:04X}"))
    return int(row[4].partition(":")[2], 16)


def delivered(site: Site, family: int) -> int:
    """Packets that the node's stack has taken in (SNMP ipInDelivers)."""
    name = {4: "IpInDelivers", 6: "Ip6InDelivers"}[family]
    return int(site.network.node.run("nstat", "-asz", name).split()[-2])


@pytest.mark.parametrize("family", [4, 6])
def test_the_sockets_for_path_mtus_queue_no_packet(site: Site, family: int) -> None:
    packets, before = 100, delivered(site, family)
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    with inside(
        site.network.router, lambda: socket.socket(kind, socket.SOCK_RAW, socket.IPPROTO_GRE)
    ) as sender:
        for _ in range(packets):
            sender.sendto(b"\0\0\x08\0" + bytes(100), (NODE[family], 0))
    eventually(lambda: delivered(site, family) >= before + packets, START_S, "they have come")
    assert queued_gre(site, family) == 0
