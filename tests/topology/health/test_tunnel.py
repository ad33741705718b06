"""Probes through the tunnel: what they find broken, and what they leave alone. tunnel_site.py."""

import asyncio
import json
import socket

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import GRE, Ether

from lbfwd.demo.topology import NODE, PLACES, VIPS, Network
from tests.topology.health.tunnel_site import BACKEND, VIP, Asker, Backend, chain, rules
from tests.topology.node.wires import frames, tap

pytestmark = pytest.mark.topology

NAMES = [place.name for place in PLACES]
FAMILIES = (4, 6)
VIP_BACKEND = BACKEND["a"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_backend_that_is_meant_answers(asker: Asker, family: int, name: str) -> None:
    assert [asker.ask(family, name) for _ in range(5)] == [name] * 5


def test_probes_leave_wrapped_alone_and_answers_come_straight(
    asker: Asker, network: Network
) -> None:
    with tap(network.router, "to-node") as sent, tap(network.node, "eth0") as came:
        for name in NAMES:
            for family in FAMILIES:
                assert asker.ask(family, name) == name
        out, back = [Ether(f) for f in frames(sent)], [Ether(f) for f in frames(came)]
    vips = set(VIPS.values())
    assert [f for f in out if f.payload.dst in vips] == [], "nothing to a VIP is unwrapped"
    inner = [f[GRE].payload for f in out if GRE in f]
    assert {p.dst for p in inner} == vips
    assert {f.payload.src for f in out if GRE in f} == {NODE[4], NODE[6]}
    assert all(p[TCP].chksum == _right_checksum(p) for p in inner)
    answers = [f.payload for f in back if TCP in f and GRE not in f]
    assert {(p.src, p.dst) for p in answers} == {(VIPS[v], NODE[v]) for v in FAMILIES}


def _right_checksum(packet: IP | IPv6) -> int:
    again = packet.copy()
    del again[TCP].chksum
    return int(type(packet)(bytes(again))[TCP].chksum)


def test_gre_dropped_at_the_backend_fails_the_tunnel_but_not_the_direct_probe(
    asker: Asker, backends: dict[str, Backend]
) -> None:
    with rules(backends["a"].host, chain("prerouting", "meta l4proto gre drop")):
        assert all(asker.is_silent(v, "a") for v in FAMILIES)
        assert asker.ask_directly("a") == "a"
        assert asker.ask(4, "b") == "b"
    assert asker.ask(4, "a") == "a"


def test_a_vip_that_the_backend_does_not_own_fails_alone(
    asker: Asker, backends: dict[str, Backend]
) -> None:
    backends["b"].serve([VIPS[6]])
    try:
        assert asker.is_silent(4, "b")
        assert asker.ask(6, "b") == "b"
        assert asker.ask_directly("b") == "b"
    finally:
        backends["b"].serve()
    assert asker.ask(4, "b") == "b"


def test_a_strict_rp_filter_on_the_backends_tunnel_fails_ipv4(
    asker: Asker, backends: dict[str, Backend]
) -> None:
    host = backends["a"].host
    tunnels = [
        link["ifname"]
        for link in json.loads(host.run("ip", "-j", "link"))
        if link["ifname"].startswith("lbfwd-")
    ]
    host.run("sysctl", "-qw", *(f"net.ipv4.conf.{name}.rp_filter=1" for name in tunnels))
    try:
        assert asker.is_silent(4, "a")
        assert asker.ask(6, "a") == "a", "IPv6 has no rp_filter"
        assert asker.ask_directly("a") == "a"
    finally:
        host.run("sysctl", "-qw", *(f"net.ipv4.conf.{name}.rp_filter=0" for name in tunnels))


def test_a_closed_port_is_refused_by_the_vip(asker: Asker) -> None:
    """The reset comes back through the same way as any answer."""

    async def connect() -> str:
        with asker.tunnel.route(VIP[4], VIP_BACKEND).bind(socket.SOCK_STREAM) as sock:
            try:
                await asyncio.get_running_loop().sock_connect(sock, (VIPS[4], 81))
            except OSError as error:
                return str(error.strerror)
            return "connected"

    assert asker.do(connect()) == "Connect call failed ('192.0.2.10', 81)"


def test_datagrams_go_the_same_way(asker: Asker, backends: dict[str, Backend]) -> None:
    """Nobody listens: the ICMP error of the VIP reaches the probe's socket."""

    async def send() -> str:
        loop = asyncio.get_running_loop()
        with asker.tunnel.route(VIP[4], VIP_BACKEND).bind(socket.SOCK_DGRAM) as sock:
            sock.connect((VIPS[4], 9))
            sock.send(b"anybody?")
            try:
                async with asyncio.timeout(5):
                    await loop.sock_recv(sock, 100)
            except ConnectionRefusedError:
                return "refused"
            return "answered"

    assert asker.do(send()) == "refused"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_ping_on_the_host_costs_a_probe_nothing(asker: Asker, family: int) -> None:
    """Not even before it is connected, when it hears of everybody."""
    router = NODE[family].removesuffix("2") + "1"

    async def opened() -> socket.socket:
        return asker.tunnel.route(VIP[family], VIP_BACKEND).bind(socket.SOCK_RAW)

    with asker.do(opened()) as sock:
        answered = asker.host.run("ping", "-c", "5", "-i", "0.01", router)
        assert " 0% packet loss" in answered
        with pytest.raises(BlockingIOError):
            sock.recv(4096)
