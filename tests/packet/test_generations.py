"""A worker forwards while another process publishes: no packet sees half a change."""

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from lbfwd.forwarding import Forwarding, Member
from lbfwd.tables import Tables
from tests.oracle import encap, segment
from tests.oracle.choice import Chooser
from tests.packet import bench
from tests.packet.crafted import GSO_TCPV4, NEEDS_CSUM, frame, offload
from tests.packet.forwarder import Item, Report, forward_until_told

GENERATIONS = 1000
STOPS = 10
DEADLINE_S = 30
SEGMENT = 120


def states() -> list[Forwarding]:
    """Backends, paths, families, weights, table sizes, services and the secret all change."""
    web = bench.service(bench.VIP4, "tcp", 84, "p")
    others = [bench.service(bench.VIP6, "udp", port, "p") for port in range(1, 40)]

    def member(n: int, family: int = 4, weight: int = 1) -> Member:
        hops = [bench.path(family, n, tx=0, hop=hop) for hop in range(n % 3 + 1)]
        return bench.member(family, n, weight, hops)

    first = bench.forwarding([web], [bench.pool("p", [member(n) for n in range(10, 20)])])
    return [
        first,
        bench.forwarding([*others, web], [bench.pool("p", [member(21)], size=2003)]),
        bench.forwarding([web], [bench.pool("p", [member(n, 6, n) for n in range(30, 60)], 31)]),
        Forwarding(bytes(16), first.services, first.pools),
    ]


def small_frames() -> list[Item]:
    return [
        (offload(), frame(4, "tcp", payload=bytes([n]), src=f"198.51.100.{n}")) for n in range(50)
    ]


def super_frame() -> list[Item]:
    """One that keeps the worker busy with one path for a while."""
    return [
        (offload(NEEDS_CSUM, GSO_TCPV4, gso_size=SEGMENT), frame(4, "tcp", payload=bytes(60000)))
    ]


def expectations(items: list[Item]) -> list[list[list[bytes]]]:
    """What each item becomes under each of the states."""
    choosers = [Chooser(state) for state in states()]
    inners = [
        segment.tcp(data[14:], SEGMENT) if header[1] else [data[14:]] for header, data in items
    ]

    def become(chooser: Chooser, data: bytes, packets: list[bytes]) -> list[bytes]:
        _service, _member, hop = chooser.choose(data)
        ends = hop.source, hop.destination, hop.src_mac, hop.dst_mac
        return [encap.wrapped(packet, *ends) for packet in packets]

    return [
        [become(chooser, data, inner) for (_header, data), inner in zip(items, inners, strict=True)]
        for chooser in choosers
    ]


@dataclass
class Fleet:
    """The publisher's side: tables, the worker process, and the wire to it."""

    tables: Tables
    process: BaseProcess
    wire: Connection

    def publish_next(self) -> int:
        rotation = states()
        generation = self.tables.publish(rotation[(self.tables.generation + 1) % len(rotation)])
        self.tables.reclaim([0])
        return generation

    def report(self) -> Report:
        with contextlib.suppress(BrokenPipeError):  # it has found something, and gone
            self.wire.send("enough")
        assert self.wire.poll(DEADLINE_S), "the worker process is silent"
        report = self.wire.recv()
        assert isinstance(report, Report)
        return report

    def stop(self) -> None:
        """Returns when it has stopped: wherever it was."""
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGSTOP)
        try:
            os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)
        except ChildProcessError:
            pytest.fail(f"the worker process has ended: {self.report().wrong}")

    def resume(self) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGCONT)


FleetMaker = Callable[[list[Item]], Fleet]


@pytest.fixture
def make_fleet(tmp_path: Path) -> Iterator[FleetMaker]:
    fleets: list[Fleet] = []

    def make(items: list[Item]) -> Fleet:
        tables = Tables.create(tmp_path, 1, 1024)
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(
            target=forward_until_told, args=(tmp_path, items, expectations(items), theirs)
        )
        fleet = Fleet(tables, process, ours)
        fleets.append(fleet)
        fleet.publish_next()
        process.start()
        assert ours.poll(DEADLINE_S), "the worker process did not come up"
        assert ours.recv() == "ready"
        return fleet

    yield make
    for fleet in fleets:
        fleet.process.kill()
        fleet.process.join()
        fleet.tables.close(unlink=True)


def test_a_generation_is_never_torn(make_fleet: FleetMaker) -> None:
    """Every frame is exactly what the generation makes of it that the worker acknowledges."""
    fleet = make_fleet(small_frames())
    while fleet.publish_next() < GENERATIONS:
        pass
    report = fleet.report()
    assert report.wrong == ""
    assert report.generations > GENERATIONS / 20, "too few to say anything"
    assert fleet.tables._arena.size == 1 << 20, "reclaimed memory is used again"


def test_memory_in_use_is_not_reused(make_fleet: FleetMaker) -> None:
    """The worker is stopped in the middle of a super-frame, and the world moves on without it."""
    fleet = make_fleet(super_frame())
    caught, end = 0, time.monotonic() + DEADLINE_S
    while caught < STOPS:
        assert time.monotonic() < end, f"caught in a burst only {caught} times"
        fleet.stop()
        if not fleet.tables.slot(0).quiescent:
            caught += 1
            for _ in range(2):  # the second would be where the one in use is
                generation = fleet.publish_next()
            assert not fleet.tables.acknowledged(generation, [0])
        fleet.resume()
        fleet.publish_next()
    assert fleet.report().wrong == ""
