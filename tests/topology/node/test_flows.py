"""Live flows keep their backend, whatever happens to tables and workers; their ICMP errors follow.

Two workers. What the Maglev tables alone would do is computed by the oracle, or shown by new flows.
"""

import os
import re
import signal
import socket
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from lbfwd.demo.lab import Host, Lab
from lbfwd.demo.topology import PLACES, VIPS
from lbfwd.forwarding import Forwarding
from tests.oracle.choice import Chooser
from tests.topology.node.site import CONFIG as SITE_CONFIG
from tests.topology.node.site import Site
from tests.topology.node.stage import CONFIG, VIP4, VIP6, Stage, running
from tests.topology.node.test_oracle import expected_state, is_gre
from tests.topology.node.wires import frames, inside

pytestmark = pytest.mark.topology

FLOWS = 1000
FIRST_PORT = 10_000
SERVICE_PORT = 9
CONNECTIONS = 200
CLIENT4, CLIENT6 = "198.51.100.2", "2001:db8:c::2"
ROUTER4, ROUTER6 = "203.0.113.7", "2001:db8:77::7"
ERRORS4 = [ICMP(type=3, code=1), ICMP(type=3, code=4), ICMP(type=11), ICMP(type=12)]
ERRORS6 = [ICMPv6DestUnreach(), ICMPv6PacketTooBig(), ICMPv6TimeExceeded(), ICMPv6ParamProblem()]


def packet(number: int, first: bool) -> Packet:
    """A packet of a flow: of four kinds by turns."""
    ports = {"sport": FIRST_PORT + number, "dport": SERVICE_PORT}
    ip = IP(src=CLIENT4, dst=VIP4) if number % 2 else IPv6(src=CLIENT6, dst=VIP6)
    tcp = number % 4 < 2
    return ip / (TCP(**ports, flags="S" if first else "A") if tcp else UDP(**ports)) / b"payload"


def error(number: int) -> Packet:
    """An ICMP error of a router on the way to the client: 8 bytes of transport are quoted."""
    protocol = 6 if number % 4 < 2 else 17
    transport = struct.pack("!HHI", SERVICE_PORT, FIRST_PORT + number, 0x01020304)
    if number % 2:
        quoted = IP(src=VIP4, dst=CLIENT4, proto=protocol, len=1480, ttl=1) / Raw(transport)
        return IP(src=ROUTER4, dst=VIP4) / ERRORS4[number // 4 % 4] / Raw(bytes(quoted))
    quoted = IPv6(src=VIP6, dst=CLIENT6, nh=protocol, plen=1440, hlim=1) / Raw(transport)
    return IPv6(src=ROUTER6, dst=VIP6) / ERRORS6[number // 4 % 4] / Raw(bytes(quoted))


def port_of(inner: bytes) -> int:
    """The client's port: in a packet of the flow, or quoted in an error."""
    four = inner[0] >> 4 == 4
    header, protocol = (20, inner[9]) if four else (40, inner[6])
    if protocol in (6, 17):
        return int(struct.unpack_from("!H", inner, header)[0])
    return int(struct.unpack_from("!H", inner, header + 8 + header + 2)[0])


def arrived(sink: socket.socket) -> dict[int, set[str]]:
    """Backends (outer destinations) by flow."""
    found: dict[int, set[str]] = {}
    for frame in filter(is_gre, frames(sink)):
        outer = 34 if frame[12:14] == b"\x08\x00" else 54
        to = frame[30:34] if outer == 34 else frame[38:54]
        number = port_of(frame[outer + 4 :]) - FIRST_PORT
        found.setdefault(number, set()).add(str(ip_address(to)))
    return found


def weighted(state: Forwarding, weights: Mapping[str, int]) -> Forwarding:
    pools = tuple(
        replace(
            pool,
            members=tuple(replace(m, weight=weights.get(m.name, m.weight)) for m in pool.members),
        )
        for pool in state.pools
    )
    return replace(state, pools=pools)


def config_of(weights: Mapping[str, int]) -> str:
    text = CONFIG
    for address, weight in weights.items():
        text = text.replace(f'"{address}" }}', f'"{address}", weight = {weight} }}')
    return text


def test_packets_and_icmp_errors_of_live_flows_reach_their_backend(tmp_path: Path) -> None:
    weights = {"10.0.0.11": 7, "fd00::11": 7, "10.0.0.12": 0, "fd00::13": 2}
    with running(tmp_path) as (stage, node):
        ethernet = Ether(src=stage.mac(stage.client, "c0"), dst=stage.mac(stage.node, "n0"))
        source, sink = stage.tap(stage.client, "c0"), stage.tap(stage.farm, "f0")
        for first in (True, False):
            for number in range(FLOWS):
                source.send(bytes(ethernet / packet(number, first)))
        before = arrived(sink)
        assert sorted(before) == list(range(FLOWS))
        assert all(len(backends) == 1 for backends in before.values())

        assert node.reload(config_of(weights)).returncode == 0
        assert moved_by_the_table_alone(stage, ethernet, weights, before) > FLOWS / 10
        for number in range(FLOWS):
            source.send(bytes(ethernet / error(number)))
        assert arrived(sink) == before, "errors reach the flow's backend"
        for number in range(FLOWS):
            source.send(bytes(ethernet / packet(number, first=False)))
        assert arrived(sink) == before, "no flow moves"

        status = node.status()
        assert not any(status["drops"].values())
        assert status["events"]["flow_new"] == FLOWS
        assert status["events"]["flow_found_elsewhere"] > 0, "errors came to another worker, too"
        assert status["events"]["flow_redirected"] == 0


def moved_by_the_table_alone(
    stage: Stage, ethernet: Packet, weights: Mapping[str, int], before: Mapping[int, set[str]]
) -> int:
    chooser = Chooser(weighted(expected_state(stage), weights))
    names = (chooser.choose(bytes(ethernet / packet(n, first=False)))[1].name for n in range(FLOWS))
    return sum({name} != before[number] for number, name in enumerate(names))


class Connection:
    """A connection to nginx that stays open."""

    def __init__(self, host: Host, family: int) -> None:
        kind = socket.AF_INET if family == 4 else socket.AF_INET6
        self.socket = inside(host, lambda: socket.socket(kind, socket.SOCK_STREAM))
        self.socket.settimeout(10)
        self.socket.connect((VIPS[family], 80))

    def ask(self) -> str:
        """The name of the backend that answers."""
        self.socket.sendall(b"GET /name HTTP/1.1\r\nHost: vip\r\n\r\n")
        answer = b""
        while b"\r\n\r\n" not in answer or not answer.partition(b"\r\n\r\n")[2]:
            part = self.socket.recv(4096)
            assert part, "the connection was closed"
            answer += part
        return answer.partition(b"\r\n\r\n")[2].decode()


@contextmanager
def connections(host: Host, count: int) -> Iterator[list[Connection]]:
    with ExitStack() as stack:
        opened = [Connection(host, 4 if n % 2 else 6) for n in range(count)]
        for connection in opened:
            stack.enter_context(connection.socket)
        yield opened


def site_config(weights: Mapping[str, int]) -> str:
    lines = "".join(
        f'{{ name = "{p.name}", address = "{p.address}", weight = {weights[p.name]} }}, '
        for p in PLACES
        if p.name in weights
    )
    found = re.search(r"backends = \[.*?\n\]", SITE_CONFIG, re.DOTALL)
    assert found
    return SITE_CONFIG.replace(found[0], f"backends = [{lines}]")


def test_connections_survive_reloads_and_a_dead_worker(tmp_path: Path) -> None:
    """weights, one more backend, a drained one, and the worker killed that remembers half."""
    changes = [{"a": 1, "b": 7}, {"a": 1, "b": 1, "c": 3}, {"a": 0, "b": 1, "c": 1}]
    with Lab() as lab:
        site = Site(lab, tmp_path, site_config({"a": 1, "b": 1}))
        client, node = site.network.client, site.node
        with connections(client, CONNECTIONS) as live:
            names = [connection.ask() for connection in live]
            assert set(names) == {"a", "b"}
            for weights in changes:
                done = node.reload(site_config(weights))
                assert done.returncode == 0, done.stderr
                assert [connection.ask() for connection in live] == names, f"after {weights}"
            for slot in (0, 1):
                os.kill(node.status()["workers"][slot]["pid"], signal.SIGKILL)
                node.until(lambda s, n=slot: replaced(s, n), "the worker is replaced")
                assert [connection.ask() for connection in live] == names, f"worker {slot} died"
            with connections(client, 50) as new:
                assert set(Counter(connection.ask() for connection in new)) == {"b", "c"}
        status = node.status()
        assert status["events"]["flow_redirected"] == 0
        assert not {reason for reason, count in status["drops"].items() if count} - {"worker_died"}


def replaced(status: dict[str, list[dict[str, object]]], slot: int) -> bool:
    worker = status["workers"][slot]
    return worker["restarts"] == 1 and worker["state"] == "running"


def test_a_removed_backend_loses_its_flows_at_once(tmp_path: Path) -> None:
    with Lab() as lab:
        site = Site(lab, tmp_path, site_config({"a": 1, "b": 1}))
        with connections(site.network.client, 20) as live:
            names = [connection.ask() for connection in live]
            assert set(names) == {"a", "b"}
            done = site.node.reload(site_config({"b": 1}))
            assert done.returncode == 0, done.stderr
            for connection, name in zip(live, names, strict=True):
                if name == "b":
                    assert connection.ask() == "b"
                else:  # b knows no such connection
                    with pytest.raises(ConnectionResetError):
                        connection.ask()
        assert site.node.status()["events"]["flow_redirected"] >= names.count("a")
