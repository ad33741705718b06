"""What a scrape of the metrics costs: ``python -m bench.metrics``.

1,000 services over one pool of 100 backends (``shared``), and over 1,000 pools of 100 (``own``). A
scrape is made as the exporter makes it, in a thread of a process whose event loop does nothing else
but look at the clock every millisecond: how late it gets there is what health checks and requests
would feel. Meanwhile a worker on another core forwards in memory with the same shared files; its
rate is compared with that of the same time without a scrape.
"""

import asyncio
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple, TypeVar

import uvloop

from bench.measure import figure
from bench.node import MTU, NODE, NODE_MAC, ROUTER_MAC, SECRET, VIP, segment
from bench.result import options, save
from bench.target import Target, at_least, at_most
from lbfwd.forwarding import Forwarding, Member, PathSpec, PoolState, ServiceState, fingerprints
from lbfwd.health.standing import Standing
from lbfwd.metrics.exporter import render
from lbfwd.metrics.reading import Reading
from lbfwd.metrics.tally import ProbeTally, ReloadTally
from lbfwd.ring import Worker, tx_geometry
from lbfwd.supervisor.blocking import in_thread
from lbfwd.supervisor.census import take
from lbfwd.tables import Tables

SERVICES, BACKENDS, TABLE_SIZE, FLOWS = 1000, 100, 65537, 65536
POOLS = {"shared": 1, "own": 1000}
TICK_S = 0.001
TX_SLOTS = 256
CLIENT = IPv4Address("198.51.100.2").packed
# Prometheus gives up after 10 s by default; a probe that is 50 ms late is not yet a failed one.
SECONDS, LATE_MS, RATE = {"shared": 0.25, "own": 5.0}, 50.0, 0.95
FORK = multiprocessing.get_context("fork")  # the worker gets the shared files' descriptors


T = TypeVar("T")


@dataclass(frozen=True)
class Cost:
    """Of one scrape. ``late_ms``: the latest that the event loop came to look at the clock.

    ``rate_ratio``: packets a second that were forwarded meanwhile, to those without a scrape.
    """

    seconds: float
    series: int
    late_ms: float
    rate_ratio: float


@dataclass(frozen=True)
class Meanwhile:
    """What a stretch of time was like; ``rate``: packets a second."""

    seconds: float
    late_ms: float
    rate: float


def state(pools: int) -> Forwarding:
    """Return the forwarding state; services take turns with the pools."""
    made = tuple(PoolState(f"pool-{n}", TABLE_SIZE, _members(n)) for n in range(pools))
    services = tuple(
        ServiceState(f"s{n}", VIP, "tcp", 80 + n, "5-tuple", f"pool-{n % pools}")
        for n in range(SERVICES)
    )
    return Forwarding(SECRET, services, made)


def _members(pool: int) -> tuple[Member, ...]:
    first = int(IPv4Address("10.64.0.0")) + pool * BACKENDS
    targets = [IPv4Address(first + n) for n in range(BACKENDS)]
    paths = [PathSpec(NODE_MAC, ROUTER_MAC, NODE, target, 0, MTU) for target in targets]
    # The same names in every pool: so that their tables are one, and made once.
    return tuple(
        Member(f"b{n}", t, 1, (p,)) for n, (t, p) in enumerate(zip(targets, paths, strict=True))
    )


class Done(NamedTuple):
    """Packets that were forwarded until then (CLOCK_MONOTONIC, s), by the worker's own account."""

    packets: int
    at_s: float


class Node:
    """Shared files, what is in them, and the thread that owns them."""

    def __init__(self, directory: Path, pools: int) -> None:
        """Publish."""
        self.forwarding = state(pools)
        self.tables = Tables.create(directory, 1, FLOWS)
        self.tables.publish(self.forwarding)
        self._digests = fingerprints(self.forwarding)
        self._probes = ProbeTally()
        self._probes.keep([pool.name for pool in self.forwarding.pools])
        up = Standing("up", 1, True, "", 0.0)
        self._standings = {
            (pool.name, member.name): up
            for pool in self.forwarding.pools
            for member in pool.members
        }

    async def scrape(self) -> list[bytes]:
        """Do what the exporter does, in the same threads."""
        tables, times = self.tables, self.forwarding.flow_times
        tenants = tables.tenants()
        counts = await in_thread(None, tables.counts, tenants)
        reading = Reading(
            version="bench",
            generation=tables.generation,
            forwarding=self.forwarding,
            standings=self._standings,
            scales={},
            fingerprints=self._digests,
            counts=counts,
            flows=await in_thread(None, take, tables, tables.seats(), times),
            flows_capacity=FLOWS,
            workers=(),
            interfaces=(),
            vips=(),
            peers=(),
            configuration="00" * 8,
            shared=None,
            registrations={},
            probes=self._probes.by_pool(),
            tunnel=None,
            reloads=ReloadTally(),
        )
        return await in_thread(None, render, reading)


def forward(files: tuple[int, ...], cpu: int, wire: Connection, others: Connection) -> None:
    """Forward until told to stop, or nobody is there; answers every order with what is done."""
    others.close()  # only so does the end of the one who gives orders show
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # that one stops us
    os.sched_setaffinity(0, {cpu})
    worker = Worker(0, *files)
    worker.add_tx(0, -1, tx_geometry(TX_SLOTS, MTU))
    frames = [segment(CLIENT, 1024 + n) for n in range(TX_SLOTS)]
    packets, going = 0, True
    while going:
        for frame in frames:
            worker.forward(frame)
        worker.sent(0)
        packets += TX_SLOTS
        if wire.poll():
            try:
                going = wire.recv()
                wire.send(Done(packets, time.monotonic()))
            except (EOFError, BrokenPipeError):
                break
    worker.close()


class Forwarder:
    """The worker beside."""

    def __init__(self, node: Node, cpu: int) -> None:
        """Start it."""
        self._wire, theirs = FORK.Pipe()
        arguments = (node.tables.files(), cpu, theirs, self._wire)
        self._process = FORK.Process(target=forward, args=arguments)
        self._process.start()
        theirs.close()  # so that its end is an EOFError here

    def done(self, go_on: bool = True) -> Done:
        """Ask what it has forwarded; blocks for a burst."""
        self._wire.send(go_on)
        done: Done = self._wire.recv()
        return done

    def stop(self) -> None:
        """End it."""
        self.done(go_on=False)
        self._process.join()


async def beside(work: Awaitable[T], forwarder: Forwarder) -> tuple[T, Meanwhile]:
    """Do something, and see what it does to the event loop and the worker."""
    clock = time.monotonic  # the loop's own counts milliseconds
    latest_s = 0.0

    async def watch() -> None:
        nonlocal latest_s
        while True:
            due = clock() + TICK_S
            await asyncio.sleep(TICK_S)
            latest_s = max(latest_s, clock() - due)

    watching = asyncio.create_task(watch())
    await asyncio.sleep(10 * TICK_S)
    before, began = forwarder.done(), clock()
    result = await work
    took_s, after = clock() - began, forwarder.done()
    watching.cancel()
    rate = (after.packets - before.packets) / (after.at_s - before.at_s)
    return result, Meanwhile(took_s, latest_s * 1000, rate)


async def round_of(node: Node, forwarder: Forwarder) -> tuple[Cost, Meanwhile]:
    """Scrape, then do nothing for as long."""
    text, busy = await beside(node.scrape(), forwarder)
    _, idle = await beside(asyncio.sleep(busy.seconds), forwarder)
    series = sum(not line.startswith(b"#") for line in b"".join(text).splitlines())
    return Cost(busy.seconds, series, busy.late_ms, busy.rate / idle.rate), idle


def measure(pools: int, rounds: int, cpus: Sequence[int]) -> tuple[list[Cost], list[Meanwhile]]:
    """Return what each round cost, and what it was like without."""
    with tempfile.TemporaryDirectory() as place:
        node = Node(Path(place), pools)
        forwarder = Forwarder(node, cpus[-1])
        os.sched_setaffinity(0, {cpus[0]})
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                both = [runner.run(round_of(node, forwarder)) for _ in range(rounds + 1)][1:]
        finally:
            os.sched_setaffinity(0, set(cpus))
            forwarder.stop()
            node.tables.close(unlink=True)
    costs, idles = zip(*both, strict=True)
    return list(costs), list(idles)


def main() -> None:
    """Measure, print, save."""
    chosen = options(__doc__, rounds=5).parse_args()
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        raise SystemExit("needs two cores: one for the worker")
    figures: dict[str, object] = {}
    targets: list[Target] = []
    for name, pools in POOLS.items():
        costs, idles = measure(pools, chosen.rounds, cpus)
        figures[name] = {
            "series": costs[0].series,
            "seconds": figure([cost.seconds for cost in costs]).plain(),
            "loop_late_ms": figure([cost.late_ms for cost in costs]).plain(),
            "loop_late_ms_without": figure([idle.late_ms for idle in idles]).plain(),
            "forwarding_rate_to_without": figure([cost.rate_ratio for cost in costs]).plain(),
        }
        what = f"{costs[0].series} series"
        targets += [
            at_most(f"a scrape of {what}, s", SECONDS[name], [c.seconds for c in costs]),
            at_most(f"event loop late meanwhile, ms ({what})", LATE_MS, [c.late_ms for c in costs]),
            at_least(f"forwarding to that without ({what})", RATE, [c.rate_ratio for c in costs]),
        ]
    save("metrics", chosen, figures, targets)


if __name__ == "__main__":
    main()
