"""What the keys of ``[workers]`` change: ``python -m bench.tuning`` (about five minutes).

By setting, median of the rounds and its interval:

rate      packets a second of one core, relative to the base in the same round: 64 bytes, 10,000
          flows, by emptying a full ring (bench/drain.py).
intake    the other side: frames that the kernel puts into the rings of two workers in a second of
          its core, relative to fanout = "hash" measured right before.
held      how long a ring takes in packets for a worker that stands still, in ms: of those that
          come as fast as the generator sends, and of SLOW_RATE a second; and how many of the fast
          ones it holds.
delay     milliseconds through the node at PROBE_RATE packets a second, and the worker's share of
          its core meanwhile.
replaced  milliseconds that packets wait when a worker is killed, until its successor takes them.
"""

import os
import random
import resource
import signal
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from bench import result
from bench.contestants import Contestant, Thread
from bench.drain import drain
from bench.measure import figure
from bench.node_run import Node, running
from bench.probe import Prober, way_through_node
from bench.stage import OTHER_CPU, Stage
from bench.stream import quantile
from bench.tuning_field import SETTLE_S, Field, field
from bench.tuning_settings import (
    BUFFERS,
    DEFAULTS,
    DELAYS,
    INTAKE_BASE,
    INTAKES,
    RATE_BASE,
    RATES,
    Setting,
)
from lbfwd.demo.lab import Lab, eventually

PACKETS = 30_000  # fit into the 32,768 slots of a V2 ring of 64 MiB
BURST = 300_000
SLOW_RATE, SLOW_PACKETS = 20_000, 40_000
PROBE_RATE, PROBES = 970, 1000  # not in step with a retire time
KILLS = 3  # after more than five within half a minute the supervisor waits
REPLACE_S = 3
MEMORY = Path("/dev/shm")  # as /run is, on most machines

Rounds = dict[str, list[float]]


def rates(directory: Path, rounds: int) -> Rounds:
    """Return by setting the rate relative to the base's, a value a round."""
    ratios: Rounds = {setting.name: [] for setting in RATES}
    with field(RATES, directory) as course:
        course.fill(PACKETS)
        for setting in RATES:  # the second packet of a flow confirms it: warm from here on
            course.empty(setting)
        for _ in range(rounds):
            course.fill(PACKETS)
            found = {
                setting: drain(course.contestants[setting], PACKETS)
                for setting in random.sample(RATES, len(RATES))
            }
            for setting in RATES:
                ratios[setting.name].append(found[setting] / found[RATE_BASE])
    return ratios


def intakes(directory: Path, rounds: int) -> Rounds:
    """Return by setting the intake relative to the base's, a value a round."""
    ratios: Rounds = defaultdict(list)
    with ExitStack() as stack:
        fields = {
            setting: stack.enter_context(field([setting], directory / setting.fanout))
            for setting in (INTAKE_BASE, *INTAKES)
        }
        for _ in range(rounds):
            for setting in INTAKES:
                base = intake(fields[INTAKE_BASE], INTAKE_BASE)
                ratios[setting.name].append(intake(fields[setting], setting) / base)
    return ratios


def intake(course: Field, setting: Setting) -> float:
    """Return frames for each second of CPU that the generator's process used.

    Receive softirqs run within its send calls, and so on its account.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    sent = course.fill(PACKETS).sent
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    course.empty(setting)
    return sent / (after.ru_stime + after.ru_utime - before.ru_stime - before.ru_utime)


def held(course: Field, rounds: int) -> dict[str, Rounds]:
    """Return by setting what the rings hold, and for how long."""
    names = ("held_burst_packets", "held_burst_ms", "held_slow_ms")
    found: dict[str, Rounds] = {name: defaultdict(list) for name in names}
    for setting in course.contestants:
        course.empty(setting)
    for _ in range(rounds):
        for name, packets, rate in (("burst", BURST, 0), ("slow", SLOW_PACKETS, SLOW_RATE)):
            report = course.fill(packets, rate)
            for setting in course.contestants:
                count = course.empty(setting)
                if setting not in BUFFERS:
                    continue
                found[f"held_{name}_ms"][setting.name].append(1000 * count / report.rate)
                if name == "burst":
                    found["held_burst_packets"][setting.name].append(count)
    return found


def delays(course: Field, prober: Prober, rounds: int) -> dict[str, Rounds]:
    """Return by setting p50 and p99 of the delay in ms, and the share of its core in use."""
    names = ("delay_p50_ms", "delay_p99_ms", "delay_core")
    found: dict[str, Rounds] = {name: defaultdict(list) for name in names}
    for _ in range(rounds):
        for setting in DELAYS:
            course.empty(setting)  # of the probes of others
            with alone(course.contestants[setting]) as worker:
                begin, ran = time.monotonic_ns(), worker.ran_ns()
                stream = prober.start(way_through_node(course.stage), PROBE_RATE, PROBES).wait()
                core = (worker.ran_ns() - ran) / (time.monotonic_ns() - begin)
            ordered = stream.delays_ms()
            for name, value in zip(
                names, (quantile(ordered, 0.5), quantile(ordered, 0.99), core), strict=True
            ):
                found[name][setting.name].append(value)
    return found


@contextmanager
def alone(contestant: Contestant) -> Iterator[Thread]:
    """Let a node work; yields its worker, which goes first on its core (``frozen``)."""
    contestant.thaw()
    try:
        yield contestant.forwarders[0]
    finally:
        contestant.freeze()


def replacements(directory: Path, prober: Prober, kills: int) -> list[float]:
    """Kill a node's worker under traffic; returns the longest delay each time, in ms."""
    longest = []
    directory.mkdir()
    with Lab() as lab:
        stage = Stage(lab)
        with running(stage, directory, DEFAULTS.toml()) as node:
            for kill in range(kills):
                stream = prober.start(way_through_node(stage), PROBE_RATE, REPLACE_S * PROBE_RATE)
                os.kill(node.status()["workers"][0]["pid"], signal.SIGKILL)
                eventually(partial(was_replaced, node, kill + 1), SETTLE_S, "a successor works")
                longest.append(stream.wait().delays_ms()[-1])
    return longest


def was_replaced(node: Node, times: int) -> bool:
    """Return whether the worker was replaced so often and works."""
    worker = node.status()["workers"][0]
    return bool(worker["restarts"] == times and worker["state"] == "running")


def measure(directory: Path, rounds: int) -> dict[str, object]:
    """Measure everything; fewer rounds of what varies little."""
    few = max(1, rounds // 2)
    prober = Prober(directory)
    columns = {
        "rate": rates(directory / "rates", rounds),
        "intake": intakes(directory / "intakes", rounds),
    }
    with field((*BUFFERS, *DELAYS), directory / "buffers") as course:
        columns |= held(course, few) | delays(course, prober, few)
    found: dict[str, object] = {
        name: {setting: figure(values).plain() for setting, values in column.items()}
        for name, column in columns.items()
    }
    longest = replacements(directory / "replaced", prober, min(rounds, KILLS))
    return found | {"replaced_ms": figure(longest).plain()}


def main() -> None:
    """Measure, print and save."""
    chosen = result.options(__doc__, rounds=7).parse_args()
    os.sched_setaffinity(0, {OTHER_CPU})
    with tempfile.TemporaryDirectory(dir=MEMORY) as place:
        found = measure(Path(place), chosen.rounds)
    for name, values in found.items():
        print(name, values)
    result.save("tuning", chosen, found)


if __name__ == "__main__":
    main()
