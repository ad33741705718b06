"""``lbfwd trace --live`` in the demo's network: who takes the packet, and that nobody gets it.

client ── router ── node, three backends with nginx behind the router (tests/topology/node/site.py)
"""

import http.client
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest

from lbfwd.demo.lab import Host, Lab, eventually
from lbfwd.demo.topology import NODE, VIPS
from tests.topology.node.site import CONFIG, Site
from tests.topology.node.stage import START_S
from tests.topology.node.test_trace import allowed
from tests.topology.node.wires import inside

pytestmark = pytest.mark.topology

CLIENT = {4: "198.51.100.2", 6: "2001:db8:c::2"}
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
UDP_PORT = 5353


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Lab() as lab:
        config = CONFIG + '[metrics]\nlisten = "0.0.0.0:9108"\n'
        yield Site(lab, tmp_path_factory.mktemp("live"), config)


def flow(family: int, protocol: str, port: int, service: int) -> list[str]:
    ends = (CLIENT[family], port), (VIPS[family], service)
    return [protocol, *(f"[{a}]:{p}" if family == 6 else f"{a}:{p}" for a, p in ends)]


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "lbfwd.cli.main", "trace", "--live", *words]


def from_client(site: Site, *words: str) -> "subprocess.CompletedProcess[str]":
    return allowed(
        site.network.client.argv(
            command(*words, "--node", NODE[4], "--runtime-dir", "/nonexistent")
        )
    )


def from_node(site: Site, *words: str) -> "subprocess.CompletedProcess[str]":
    return allowed(site.network.node.argv(command(*words, "--runtime-dir", str(site.node.runtime))))


def taken(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    """The packet and the forecast of the one node that took it as was foretold."""
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    body = json.loads(done.stdout)
    assert (body["agree"], body["problems"]) == (True, [])
    (node,) = body["nodes"]
    packet, said = node["packet"], node["trace"]
    assert packet["backend"] == said["backend"]["name"]
    assert (packet["received_on"], packet["sent_on"], packet["outcome"]) == (
        "eth0", "eth0", "forwarded",
    )  # fmt: skip
    assert packet["worker"] == said["worker"]
    assert packet["cpu"] == [0, 1][packet["worker"]]
    return dict(packet)


def refused(host: Host, protocol: str) -> int:
    """Packets that the host's stack has dropped for their checksum."""
    name = {"tcp": "TcpInCsumErrors", "udp4": "UdpInCsumErrors", "udp6": "Udp6InCsumErrors"}
    return int(host.run("nstat", "-asz", name[protocol]).split()[-2])


def connection(site: Site, family: int) -> http.client.HTTPConnection:
    """One to nginx, which stays open."""

    def make() -> http.client.HTTPConnection:
        made = http.client.HTTPConnection(VIPS[family], 80, timeout=20)
        made.connect()
        return made

    return inside(site.network.client, make)


def name(made: http.client.HTTPConnection) -> str:
    made.request("GET", "/name")
    return made.getresponse().read().decode()


@pytest.mark.parametrize("family", [4, pytest.param(6, marks=pytest.mark.slow)])
def test_a_live_connection_is_traced_and_not_disturbed(site: Site, family: int) -> None:
    with closing(connection(site, family)) as made:
        backend, port = name(made), made.sock.getsockname()[1]
        host = site.network.backends[backend]
        before = refused(host, "tcp")
        words = flow(family, "tcp", port, 80)
        for trace in (from_client, from_node):
            packet = taken(trace(site, *words, "--json"))
            assert (packet["backend"], packet["chosen_by"]) == (backend, "flow_table")
            assert packet["pool"] == "web"
        eventually(lambda: refused(host, "tcp") == before + 2, 20, "both came, and were refused")
        assert name(made) == backend, "the connection goes on"
        assert made.sock.getsockname()[1] == port, "and it is the same"


@pytest.mark.parametrize("family", [pytest.param(4, marks=pytest.mark.slow), 6])
def test_no_application_gets_the_packet(site: Site, family: int) -> None:
    with ExitStack() as stack:
        servers = {
            backend: stack.enter_context(inside(host, lambda: listen(family)))
            for backend, host in site.network.backends.items()
        }
        before = {b: refused(h, f"udp{family}") for b, h in site.network.backends.items()}
        words = flow(family, "udp", 4000, UDP_PORT)
        packet = taken(from_client(site, *words, "--json"))
        chosen = packet["backend"]
        assert packet["chosen_by"] == "maglev_table"
        host = site.network.backends[chosen]
        eventually(lambda: refused(host, f"udp{family}") == before[chosen] + 1, 20, "it came")
        sender = stack.enter_context(inside(site.network.client, lambda: bound(family, 4000)))
        sender.sendto(b"real", (VIPS[family], UDP_PORT))
        assert servers[chosen].recv(100) == b"real", "the first that it gets"
        for backend, server in servers.items():
            server.setblocking(False)
            with pytest.raises(BlockingIOError):
                server.recv(100)
            grown = refused(site.network.backends[backend], f"udp{family}") - before[backend]
            assert grown == (backend == chosen)


def listen(family: int) -> socket.socket:
    sock = socket.socket(FAMILIES[family], socket.SOCK_DGRAM)
    sock.bind((VIPS[family], UDP_PORT))
    sock.settimeout(20)
    return sock


def bound(family: int, port: int) -> socket.socket:
    sock = socket.socket(FAMILIES[family], socket.SOCK_DGRAM)
    sock.bind((CLIENT[family], port))
    return sock


def test_what_was_dropped_is_told_and_is_exit_code_1(site: Site) -> None:
    done = from_client(site, *flow(4, "tcp", 4001, 81))
    assert done.returncode == 1
    assert "outcome   dropped no_service\nforetold  the same\n" in done.stdout
    assert "\nnode: dropped no_service\n" in done.stdout.replace(node_name(site), "node")


def node_name(site: Site) -> str:
    return str(site.node.status()["node"])


def test_a_packet_that_a_router_drops_is_nobodys(site: Site) -> None:
    """Sent by the node it has a source that is not behind that link: strict rp_filter."""
    router = site.network.router
    router.run("sysctl", "-qw", "net.ipv4.conf.to-node.rp_filter=1")
    try:
        done = from_node(site, *flow(4, "tcp", 4002, 80), "--wait", "0.5")
    finally:
        router.run("sysctl", "-qw", "net.ipv4.conf.to-node.rp_filter=0")
    assert (done.returncode, done.stderr) == (1, "")
    assert "did not see it\nno node saw the packet within 0.5 s\n" in done.stdout
    assert f"It was sent by eth0 to {VIPS[4]}." in done.stdout
    assert "rp_filter" in done.stdout


def test_an_echo_request_is_answered_by_the_node(site: Site) -> None:
    done = from_client(site, "icmp", CLIENT[6], VIPS[6])
    assert (done.returncode, done.stderr) == (0, "")
    assert "outcome   answered echo_answered\nforetold  the same\n" in done.stdout


def test_without_the_right_to_send_nothing_is_sent(site: Site) -> None:
    words = command(*flow(4, "tcp", 4003, 80), "--node", NODE[4], "--wait", "0.1")
    bare = ["setpriv", "--bounding-set", "-net_raw", "--inh-caps", "-net_raw", *words]
    argv = site.network.client.argv(bare)
    eventually(
        lambda: "no permission to send" in subprocess.run(
            argv, capture_output=True, text=True, timeout=60, check=False
        ).stderr, START_S, "it is refused",
    )  # fmt: skip


def test_where_no_route_leads_to_the_vip_nothing_is_sent() -> None:
    with Lab() as lab:
        done = allowed(
            lab.host("alone").argv(command(*flow(6, "udp", 1, 2), "--node", "127.0.0.1"))
        )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"lbfwd trace: no route to {VIPS[6]}: Network is unreachable\n"
