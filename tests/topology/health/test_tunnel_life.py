"""The tunnel's own things: made, kept, restored, and never a way for a probe to leak."""

import asyncio
import re
import socket
import sys
import threading
from contextlib import ExitStack, suppress
from functools import partial

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import GRE, Ether
from scapy.packet import Packet

from lbfwd.demo.lab import eventually
from lbfwd.demo.topology import NODE, VIPS, Network
from lbfwd.health import tunnel_device
from lbfwd.health.tunnel import TunnelError
from lbfwd.health.tunnel_device import DEVICE, MARK, REFUSAL_PRIORITY, RULE_PRIORITY, TABLE
from tests.topology.backend.site import snapshot
from tests.topology.health.tunnel_site import BACKEND, VIP, Asker, Backend, chain, rules
from tests.topology.node.wires import frames, inside, tap

pytestmark = pytest.mark.topology

HOLDER = """
import signal
from lbfwd.health.tunnel_pump import Pump
pump = Pump()
print("ready", flush=True)
signal.pause()
"""


def to_vip(frame: Packet) -> bool:
    """Tell whether a frame is for a VIP, not wrapped; neighbours are asked for meanwhile, too."""
    outer = frame.payload
    return isinstance(outer, IP | IPv6) and outer.dst in VIPS.values()


def test_closing_leaves_nothing(network: Network, backends: dict[str, Backend]) -> None:
    before = snapshot(network.node)
    asker = Asker(network.node).start()
    try:
        assert asker.ask(4, "a") == "a"
        assert DEVICE in snapshot(network.node)
    finally:
        asker.close()
    assert snapshot(network.node) == before


def test_what_a_killed_supervisor_left_is_replaced(
    network: Network, backends: dict[str, Backend]
) -> None:
    before = snapshot(network.node)
    process = network.node.start(sys.executable, "-c", HOLDER, stdout=-1, text=True)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "ready\n"
        process.kill()
        process.wait()
    assert f"fwmark {MARK:#x}" in snapshot(network.node), "rules stay"
    asker = Asker(network.node).start()
    try:
        rules = network.node.run("ip", "rule").splitlines()
        assert len([rule for rule in rules if f"lookup {TABLE}" in rule]) == 1
        assert asker.ask(6, "c") == "c"
    finally:
        asker.close()
    assert snapshot(network.node) == before


@pytest.mark.slow
def test_two_in_one_namespace_are_refused(asker: Asker, network: Network) -> None:
    other = Asker(network.node)
    try:
        with pytest.raises(TunnelError, match="another lbfwd has it in this network namespace"):
            other.start()
    finally:
        other.close()
    assert asker.ask(4, "a") == "a", "the first one's rules are still there"


@pytest.mark.slow
def test_a_table_of_others_is_left_alone(network: Network) -> None:
    route = ("10.7.0.0/16", "via", "10.0.0.1", "table", str(TABLE))
    network.node.run("ip", "route", "add", *route)
    asker = Asker(network.node)
    try:
        before = snapshot(network.node)
        with pytest.raises(TunnelError, match=f"routing table {TABLE} has routes that are not"):
            asker.start()
        assert snapshot(network.node) == before
    finally:
        asker.close()
        network.node.run("ip", "route", "del", *route)


def test_without_anything_to_ask_what_was_left_is_removed(
    network: Network, backends: dict[str, Backend]
) -> None:
    before = snapshot(network.node)
    asker = Asker(network.node).start()
    try:
        asker.do(asker.tunnel.apply(()))
        assert snapshot(network.node) == before
        asker.do(asker.tunnel.apply(asker.wanted))
        assert asker.ask(4, "a") == "a"
    finally:
        asker.close()


# Each piece of the tunnel, and what takes it away.
BREAKS = {
    "device": f"ip link del {DEVICE}",
    "device down": f"ip link set {DEVICE} down",
    "routes": f"ip route flush table {TABLE}",
    "routes6": f"ip -6 route flush table {TABLE}",
    "rule": f"ip rule del fwmark {MARK:#x} priority {RULE_PRIORITY}",
    "rule6": f"ip -6 rule del fwmark {MARK:#x} priority {RULE_PRIORITY}",
    "refusal": f"ip rule del fwmark {MARK:#x} priority {REFUSAL_PRIORITY}",
    "refusal6": f"ip -6 rule del fwmark {MARK:#x} priority {REFUSAL_PRIORITY}",
    "nft": "nft flush ruleset",
}
broken = pytest.mark.parametrize("what", BREAKS)


def ours(network: Network) -> str:
    """What there is on the node; a device that was made again has another index."""
    return re.sub(rf"^\d+: {DEVICE}", DEVICE, snapshot(network.node), flags=re.M)


@broken
def test_what_others_break_is_put_right_by_the_next_look(
    asker: Asker, network: Network, what: str
) -> None:
    whole = ours(network)
    network.node.run(*BREAKS[what].split())
    asker.look()
    assert ours(network) == whole
    for family in VIPS:
        assert asker.ask(family, "a") == "a"


def unwrapped(wire: socket.socket) -> list[Packet]:
    """What goes to a VIP as it is; ARP has no such address."""
    seen = map(Ether, frames(wire))
    return [f for f in seen if getattr(f.payload, "dst", "") in VIPS.values()]


@broken
def test_until_then_no_probe_leaves_unwrapped_nor_is_held_against_the_backend(
    asker: Asker, network: Network, what: str
) -> None:
    with tap(network.router, "to-node") as wire, ExitStack() as stack:
        under_way = [stack.enter_context(asker.connected(family, "a")) for family in VIPS]
        network.node.run(*BREAKS[what].split())
        for sock in under_way:
            sock.send(b"GET")
        said = {asker.probe(family, "a").name for family in VIPS}
        leaked = unwrapped(wire)
    if what == "nft":  # nobody marks the kernel's resets to late answers; they are no probe's
        leaked = [f for f in leaked if TCP not in f or not f[TCP].flags.R]
    assert leaked == []
    assert said <= {"passed", "not_sent"}
    asker.look()
    assert {asker.probe(family, "a").name for family in VIPS} == {"passed"}


def test_setting_up_again_lets_nothing_of_a_probe_out(asker: Asker, network: Network) -> None:
    ended = threading.Event()

    def stream(sock: socket.socket) -> None:
        while not ended.wait(0.0005):
            with suppress(OSError):
                sock.send(b"under way")

    with tap(network.router, "to-node") as wire, asker.datagrams(4, "a") as sock:
        thread = threading.Thread(target=stream, args=(sock,))
        thread.start()
        try:
            for what in ("device", "rule", "refusal"):
                network.node.run(*BREAKS[what].split())
                asker.look()
        finally:
            ended.set()
            thread.join()
        assert unwrapped(wire) == []


def test_a_rule_before_ours_leads_no_probe_past_the_tunnel(asker: Asker, network: Network) -> None:
    rule = ("fwmark", hex(MARK), "lookup", "main", "priority", "0")
    network.node.run("ip", "rule", "add", *rule)
    try:
        with tap(network.router, "to-node") as wire:
            assert asker.probe(4, "a").name == "timeout", "it is dropped"
            for _ in range(3):
                with pytest.raises(TunnelError, match="would leave by another interface"):
                    asker.look()
            found = asker.probe(4, "a")
            assert unwrapped(wire) == []
        assert (found.name, "another interface" in found.detail) == ("not_sent", True)
    finally:
        network.node.run("ip", "rule", "del", *rule)
    asker.look()
    assert asker.probe(4, "a").name == "passed"


def test_late_answers_are_refused_where_they_come_from(asker: Asker, network: Network) -> None:
    """The backend's SYN-ACK is lost, the probe gives up, and the next SYN-ACK finds nobody."""
    lost = chain("forward", f"ip saddr {VIPS[4]} drop", f"ip6 saddr {VIPS[6]} drop")
    with tap(network.router, "to-node") as wire:
        with rules(network.router, lost):
            assert all(asker.is_silent(family, "a") for family in VIPS)
        seen: list[Packet] = []

        def resets() -> set[str]:
            seen.extend(map(Ether, frames(wire)))
            inner = [f[GRE].payload for f in seen if GRE in f]
            return {p.dst for p in inner if TCP in p and p[TCP].flags.R}

        eventually(lambda: resets() == set(VIPS.values()), 20, "wrapped resets")
    assert [f for f in seen if to_vip(f)] == []


@pytest.mark.slow
def test_late_datagrams_are_not_answered_unwrapped(asker: Asker, network: Network) -> None:
    """A datagram for a port that nobody holds any more: no ICMP error goes to the VIP."""
    here = {4: NODE[4], 6: NODE[6]}

    def late(family: int) -> None:
        kind = {4: socket.AF_INET, 6: socket.AF_INET6}[family]
        with socket.socket(kind, socket.SOCK_DGRAM) as sock:
            sock.bind((VIPS[family], 53))
            sock.sendto(b"late", (here[family], 61001))

    with tap(network.router, "to-node") as wire:
        for family in VIPS:
            inside(network.backends["a"], partial(late, family))
        seen = [Ether(f) for f in frames(wire)]
    assert [f for f in seen if to_vip(f)] == []


@pytest.mark.slow
def test_a_vip_of_this_node_is_named_and_the_other_one_served(
    asker: Asker, network: Network
) -> None:
    network.node.run("ip", "address", "add", VIPS[4], "dev", "lo")
    try:
        asker.look()
        counters = asker.tunnel.counters()
        assert (
            asker.ask(4, "a") == f"VIP {VIPS[4]} is an address of this node: no packet to it leaves"
        )
        assert asker.ask(6, "a") == "a"
        asker.look()
        after = asker.tunnel.counters()
        assert counters is not None
        assert after is not None
        assert after.packets > counters.packets, "not set up again"
    finally:
        network.node.run("ip", "address", "del", VIPS[4], "dev", "lo")
    asker.look()
    assert asker.ask(4, "a") == "a"


def test_each_probe_has_a_name_of_its_own(asker: Asker) -> None:
    route = asker.tunnel.route(VIP[4], BACKEND["a"])

    async def bind(kind: socket.SocketKind, count: int) -> list[socket.socket]:
        return [route.bind(kind) for _ in range(count)]

    tcp = asker.do(bind(socket.SOCK_STREAM, 300))
    udp = asker.do(bind(socket.SOCK_DGRAM, 300))
    try:
        ports = [sock.getsockname()[1] for sock in (*tcp, *udp)]
        assert len(set(ports)) == len(ports)
        assert {port // 1000 for port in ports} <= set(range(61, 66))
    finally:
        for sock in (*tcp, *udp):
            sock.close()


@pytest.mark.slow
def test_a_port_that_another_program_has_is_passed_over(asker: Asker, network: Network) -> None:
    def take(port: int) -> socket.socket:
        sock = socket.socket()
        sock.bind(("0.0.0.0", port))
        return sock

    async def bind() -> int:
        with asker.tunnel.route(VIP[4], BACKEND["a"]).bind(socket.SOCK_STREAM) as sock:
            return int(sock.getsockname()[1])

    port = asker.do(bind())
    following = 61000 if port == 65535 else port + 1
    with inside(network.node, lambda: take(following)):
        assert asker.do(bind()) not in {port, following}
    assert asker.ask(4, "a") == "a"


def test_counters_of_the_pump_balance(asker: Asker) -> None:
    assert asker.ask(4, "a") == "a"
    asker.do(asyncio.sleep(0))
    counters = asker.tunnel.counters()
    assert counters is not None
    assert counters.packets >= 4, "SYN, ACK, request, reset"
    assert (counters.stray, counters.too_big, counters.unsent) == (0, 0, 0)


def test_no_tun_in_this_kernel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel_device.tun, "PATH", "/dev/net/no-such-device")
    with pytest.raises(TunnelError, match=r"no-such-device: No such file .*modprobe tun"):
        tunnel_device.open_device()
