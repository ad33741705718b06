"""The benchmarks' generator and reflector, their frames judged by Scapy.

gen g0 ── n0 node n1 ── s0 sink: bench/stage.py
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import GRE, Ether

from bench.contestants import frozen, reflecting
from bench.frames import VIPS, Shape
from bench.generate import Generator
from bench.program import build
from bench.rings import Rings
from bench.stage import BACKENDS, NODE, Stage
from lbfwd.demo.lab import Lab, eventually
from tests.topology.node.wires import frames, tap
from tests.unit.bench.test_frames import rebuilt

pytestmark = pytest.mark.topology
FLOWS, COUNT = 50, 120
DEADLINE_S = 10.0


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    if os.geteuid() != 0:
        pytest.skip("needs root: network namespaces")
    with Lab() as lab:
        yield Stage(lab)


def client(data: bytes) -> tuple[str, int]:
    packet = Ether(data)
    ip = packet[IP] if IP in packet else packet[IPv6]
    return ip.src, packet[UDP if UDP in packet else TCP].sport


@pytest.mark.parametrize(
    "shape", [Shape(64, 4, "tcp-syn"), Shape(1500, 4, "udp"), Shape(512, 6, "tcp-ack")], ids=str
)
def test_the_generator_sends_flows_in_turn(stage: Stage, tmp_path: Path, shape: Shape) -> None:
    generator = Generator(stage, tmp_path)
    with tap(stage.node, "n0") as arriving:
        report = generator.send(shape, FLOWS, COUNT, first=7)
        got = frames(arriving, COUNT)
    assert report.sent == len(got) == COUNT
    for data in got:
        packet: Any = Ether(data)
        assert rebuilt(packet) == data  # lengths and checksums are right
        assert len(data) == shape.size - 4
        assert packet[IP if shape.family == 4 else IPv6].dst == str(VIPS[shape.family])
    clients = [client(data) for data in got]
    assert len(set(clients)) == FLOWS
    assert clients[FLOWS:] == clients[: COUNT - FLOWS]


def test_runs_with_other_numbers_have_other_flows(stage: Stage, tmp_path: Path) -> None:
    generator = Generator(stage, tmp_path)
    with tap(stage.node, "n0") as arriving:
        for first in (0, FLOWS):
            generator.send(Shape(), FLOWS, FLOWS, first=first)
        got = frames(arriving, 2 * FLOWS)
    assert len({client(data) for data in got}) == 2 * FLOWS


def test_the_generator_ends_when_it_is_told_to(stage: Stage, tmp_path: Path) -> None:
    generator = Generator(stage, tmp_path)
    with tap(stage.node, "n0") as arriving:
        running = generator.start(Shape(), FLOWS, rate=1000)
        assert len(frames(arriving, 3)) == 3
        report = running.stop()
    assert 3 <= report.sent <= 1 + report.nanoseconds / 1_000_000  # the first at once


@pytest.mark.parametrize(("mode", "ring"), [("linear", "v3"), ("linear", "v2"), ("plain", "v3")])
def test_the_reflector_wraps_every_frame(
    stage: Stage,
    tmp_path: Path,
    mode: Literal["linear", "plain"],
    ring: Literal["v3", "v2"],
) -> None:
    generator, rings = Generator(stage, tmp_path), Rings(ring, rx_ring_mib=1)
    with (
        tap(stage.node, "n0") as arriving,
        tap(stage.sink, "s0") as leaving,
        reflecting(stage, build("reflect", tmp_path), mode, rings) as reflector,
    ):
        before = reflector.sent.packets()
        with frozen([reflector]):
            generator.send(Shape(), FLOWS, COUNT)
            assert reflector.sent.packets() == before
        eventually(lambda: reflector.sent.packets() == before + COUNT, DEADLINE_S, "it goes on")
        came, went = frames(arriving, COUNT), frames(leaving, COUNT)
    assert len(came) == COUNT
    assert [len(data) for data in went] == [len(data) + 24 for data in came]
    for data, inner in zip(went, came, strict=True):
        outer = Ether(data)
        assert (outer[IP].src, outer[IP].dst) == (NODE, BACKENDS[0])
        assert data[38:] == inner[14:]
    assert GRE in Ether(went[0])
