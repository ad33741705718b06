"""The probe pump: the kernel's packets in, the workers' outer header out. Scapy is the oracle."""

import os
import random
import threading
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrFragment,
)
from scapy.packet import Packet, Raw

from lbfwd import ring
from lbfwd.demo.lab import eventually
from lbfwd.encap import outer_header
from lbfwd.ring import ProbeCounters, ProbePump
from lbfwd.shared import PathRow, pack_paths
from tests.oracle.encap import wrapped

NODE_MAC, HOP_MAC = bytes.fromhex("020000000001"), bytes.fromhex("0a1b2c3d4e5f")
NODE = {4: ip_address("10.0.0.1"), 6: ip_address("fd00::1")}
BACKEND = {4: ip_address("10.0.0.11"), 6: ip_address("fd00::11")}
OTHER = {4: ip_address("10.0.0.12"), 6: ip_address("fd00::12")}
NAME, OTHER_NAME = 61234, 61235
IFINDEX = 7
VIPS = {4: IP(src="10.0.0.1", dst="192.0.2.10"), 6: IPv6(src="fd00::1", dst="2001:db8::10")}


def path(
    family: int,
    backends: dict[int, object] = BACKEND,
    *,
    mtu: int = 1500,
    source: object = None,
    entropy_bits: int = 0,
    may_fragment: bool = False,
) -> bytes:
    ends = source or NODE[family], backends[family]
    header = outer_header(HOP_MAC, NODE_MAC, *ends, may_fragment)  # type: ignore[arg-type]
    return pack_paths([PathRow(header, 0, mtu, entropy_bits)])


@pytest.fixture
def pump() -> ProbePump:
    return ProbePump()


def lost(pump: ProbePump) -> tuple[int, int]:
    counters = pump.counters()
    assert counters.packets == counters.bytes == counters.unsent == 0
    return counters.stray, counters.too_big


def echo(vip: int, name: int, size: int = 8) -> Packet:
    kind = ICMP(type=8, id=name) if vip == 4 else ICMPv6EchoRequest(id=name)
    return VIPS[vip] / kind / Raw(bytes(size))


def named(vip: int, name: int) -> list[Packet]:
    """One packet of each kind that carries this name."""
    return [
        VIPS[vip] / TCP(sport=name, dport=80, flags="S"),
        VIPS[vip] / UDP(sport=name, dport=53) / Raw(b"query"),
        echo(vip, name),
    ]


@pytest.mark.parametrize("backend", [4, 6])
@pytest.mark.parametrize("vip", [4, 6])
@pytest.mark.parametrize("kind", range(3), ids=["tcp", "udp", "echo"])
def test_the_frame_is_the_workers_for_the_backend_of_the_name(
    pump: ProbePump, vip: int, backend: int, kind: int
) -> None:
    pump.aim(NAME, path(backend), IFINDEX)
    pump.aim(OTHER_NAME, path(backend, OTHER), IFINDEX + 1)
    for name, to, ifindex in ((NAME, BACKEND, IFINDEX), (OTHER_NAME, OTHER, IFINDEX + 1)):
        inner = bytes(named(vip, name)[kind])
        got = pump.wrap(inner)
        assert got is not None
        assert got[0] + inner == wrapped(inner, NODE[backend], to[backend], NODE_MAC, HOP_MAC)
        assert got[1] == ifindex


def test_traffic_class_is_copied(pump: ProbePump) -> None:
    pump.aim(NAME, path(4), IFINDEX)
    for inner in (
        IP(dst="192.0.2.10", tos=0xB9) / TCP(sport=NAME),
        IPv6(dst="2001:db8::10", tc=0xB9) / TCP(sport=NAME),
    ):
        got = pump.wrap(bytes(inner))
        assert got is not None
        assert IP(got[0][14:]).tos == 0xB9


def test_a_new_aim_counts_from_the_next_packet_on(pump: ProbePump) -> None:
    inner = bytes(named(4, NAME)[0])
    pump.aim(NAME, path(4), IFINDEX)
    pump.wrap(inner)
    pump.aim(NAME, path(6, OTHER), IFINDEX)
    got = pump.wrap(inner)
    assert got is not None
    assert got[0] + inner == wrapped(inner, NODE[6], OTHER[6], NODE_MAC, HOP_MAC)


@pytest.mark.parametrize(("backend", "overhead"), [(4, 24), (6, 44)])
def test_what_fits_the_path_exactly_goes_and_a_byte_more_does_not(
    pump: ProbePump, backend: int, overhead: int
) -> None:
    pump.aim(NAME, path(backend, mtu=1400), IFINDEX)
    headers = 28
    fits = bytes(echo(4, NAME, 1400 - overhead - headers))
    assert len(fits) + overhead == 1400
    assert pump.wrap(fits)
    assert lost(pump) == (0, 0)
    assert pump.wrap(bytes(echo(4, NAME, 1400 - overhead - headers + 1))) is None
    assert lost(pump) == (0, 1)


@pytest.mark.parametrize("prefix", ["10.99.0.0/16", "fd99::/64"])
def test_source_entropy_stays_in_the_prefix_and_varies_with_the_name(
    pump: ProbePump, prefix: str
) -> None:
    network = ip_network(prefix)
    bits = min(32, network.max_prefixlen - network.prefixlen)
    row = path(network.version, source=network.network_address, entropy_bits=bits)
    sources = set()
    for name in range(61000, 61032):
        pump.aim(name, row, IFINDEX)
        got = pump.wrap(bytes(named(4, name)[0]))
        assert got is not None
        outer = IP(got[0][14:]) if network.version == 4 else IPv6(got[0][14:])
        assert ip_address(outer.src) in network
        if network.version == 4:
            check = outer.chksum
            del outer.chksum
            assert IP(bytes(outer)).chksum == check
        sources.add(outer.src)
    assert len(sources) > 16


def test_without_df_each_packet_has_an_identification(pump: ProbePump) -> None:
    pump.aim(NAME, path(4, may_fragment=True), IFINDEX)
    inner = bytes(named(4, NAME)[0])
    seen = []
    for _ in range(3):
        got = pump.wrap(inner)
        assert got is not None
        outer = IP(got[0][14:])
        ends = NODE[4], BACKEND[4], NODE_MAC, HOP_MAC
        assert got[0] + inner == wrapped(inner, *ends, identification=outer.id)
        seen.append(outer.id)
    assert len(set(seen)) == 3


STRAYS = [
    VIPS[4] / TCP(sport=NAME + 1),
    VIPS[4] / ICMP(type=0, id=NAME),
    VIPS[4] / ICMP(type=3, code=3, unused=0) / bytes(VIPS[4] / UDP(sport=NAME)),
    IP(dst="192.0.2.10", proto=132) / Raw(NAME.to_bytes(2, "big") * 8),
    IP(dst="192.0.2.10", flags="MF") / UDP(sport=NAME),
    IP(dst="192.0.2.10", frag=1) / UDP(sport=NAME),
    VIPS[6] / TCP(sport=NAME + 1),
    VIPS[6] / ICMPv6EchoReply(id=NAME),
    VIPS[6] / ICMPv6DestUnreach() / bytes(VIPS[6] / UDP(sport=NAME)),
    VIPS[6] / IPv6ExtHdrFragment() / UDP(sport=NAME),
    IP(dst="192.0.2.10", proto=58) / ICMPv6EchoReply(id=NAME),
]


@pytest.mark.parametrize("packet", STRAYS, ids=lambda packet: packet.summary())
def test_what_is_no_probe_is_not_sent(pump: ProbePump, packet: Packet) -> None:
    pump.aim(NAME, path(4), IFINDEX)
    assert pump.wrap(bytes(packet)) is None
    assert lost(pump) == (1, 0)


@pytest.mark.parametrize("vip", [4, 6])
def test_options_before_the_port_are_skipped_or_refused_never_misread(
    pump: ProbePump, vip: int
) -> None:
    pump.aim(NAME, path(4), IFINDEX)
    packet = IP(dst="192.0.2.10", options=[IPOption_NOP()] * 8) / UDP(sport=NAME)
    assert pump.wrap(bytes(packet)) is not None
    for whole in named(vip, NAME):
        data = bytes(whole)
        transport = 20 if vip == 4 else 40
        for cut in range(transport + 8):
            assert pump.wrap(data[:cut]) is None


def test_junk_is_survived(pump: ProbePump) -> None:
    pump.aim(0, path(4), IFINDEX)
    rng = random.Random(5)
    for _ in range(5000):
        data = rng.randbytes(rng.randrange(0, 80))
        got = pump.wrap(data)
        assert got is None or len(got[0]) == 38


def test_a_path_is_one_row(pump: ProbePump) -> None:
    with pytest.raises(ValueError, match="not one path"):
        pump.aim(NAME, path(4) * 2, IFINDEX)


@pytest.fixture
def wake() -> Iterator[int]:
    fd = os.eventfd(0)
    yield fd
    os.close(fd)


def test_the_pump_ends_when_it_is_woken(pump: ProbePump, wake: int) -> None:
    out, into = os.pipe2(os.O_NONBLOCK)
    thread = threading.Thread(target=pump.run, args=(out, -1, wake))
    thread.start()
    os.eventfd_write(wake, 1)
    thread.join(10)
    assert not thread.is_alive()
    os.close(into)
    os.close(out)


def test_a_device_that_fails_ends_the_pump_by_name(
    pump: ProbePump, wake: int, tmp_path: Path
) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)  # reading one is an error: EISDIR
    with pytest.raises(IsADirectoryError, match="probe pump"):
        pump.run(directory, -1, wake)
    os.close(directory)


def test_what_the_kernel_refuses_is_counted(pump: ProbePump, wake: int) -> None:
    out, into = os.pipe2(os.O_NONBLOCK)
    pump.aim(NAME, path(4), IFINDEX)
    inner = bytes(named(4, NAME)[0])
    thread = threading.Thread(target=pump.run, args=(out, -1, wake))
    thread.start()
    os.write(into, inner)
    eventually(lambda: pump.counters().unsent > 0, 10, "the refusal is counted")
    os.eventfd_write(wake, 1)
    thread.join(10)
    assert pump.counters() == ProbeCounters(0, 0, 0, 0, 1)
    os.close(into)
    os.close(out)


def test_counters_are_named_as_the_contract_names_them() -> None:
    fields = {name for name, _ in ring.ffi.typeof("struct lbfwd_probe_counters").fields}
    assert fields == set(ProbeCounters.__dataclass_fields__)
