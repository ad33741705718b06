"""What a reload takes, and what it does to the traffic: ``python -m bench.reload``.

A node forwards a steady stream. Within a round the stream is first left alone, and then the
configuration is changed, again and again or once, for as long. Measured are the time from asking
at the admin socket until every worker uses the new state, lost packets, the gaps between the
worker's bursts as they arrive, and the packets' delays. The worker has a core of its own;
supervisor and stream share the other one.

Cases: the file of a small node gives one backend another weight; an operator takes one backend out
and back (no file is read), of a pool that 1,000 services share, and of one of 1,000 pools; a health
check of the shared pool fails and passes again, timed from the verdict's event in the log; and the
file changes all of 1,000 pools at once.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

from bench import result
from bench.measure import figure
from bench.probe import Prober, Way, way_through_node
from bench.reload_node import Changing, Form, Reload, Size, changing, config
from bench.reload_picture import draw
from bench.stage import OTHER_CPU, Stage
from bench.stream import Stream, quantile, quantiles
from bench.target import Target, at_most
from lbfwd.demo.lab import Lab

RATE = 10_000
LONGEST_S = 120
SHORTEST_S = 2.0
WARM_UP_S = 0.5
# A burst is what came in one retire time (1 ms): arrivals closer than half of that are one.
BURST_MS = 0.5
MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Case:
    """A node, and how it is changed in turn: verbs about its first backend, or configurations."""

    name: str
    title: str
    size: Size
    steps: tuple[str | Form, ...]
    target_ms: float | None = None
    """Within this a change is to be in service."""

    def changes(self, node: Changing) -> Iterator[Callable[[], tuple[str, Reload]]]:
        """Return one change after the other, without an end."""
        return cycle([partial(self._change, node, step) for step in self.steps])

    def _change(self, node: Changing, step: str | Form) -> tuple[str, Reload]:
        if step in HEALTH:
            return step, node.suffer(step)
        if isinstance(step, str):
            return step, node.ask(step, FIRST)
        node.write(config(self.size, step))
        return "reload", node.ask("reload")


FIRST = {"pool": "p0", "backend": "p0b0"}
FAILURE = ("disable", "enable")
HEALTH = ("fail", "recover")
ALL_POOLS = (Form(weight=2, pools=1000), Form(pools=1000))
CASES = (
    Case("small", "10 services, 10 pools x 10 backends", Size(10, 10, 10), (Form(2), Form())),
    Case("shared", "a pool of 100 that 1,000 services share", Size(1000, 1, 100), FAILURE, 20),
    Case("failing", "the same, and each backend is probed", Size(1000, 1, 100, True), HEALTH, 20),
    Case("one of many", "one of 1,000 pools x 100 backends", Size(1000, 1000, 100), FAILURE, 20),
    Case("all", "all of 1,000 pools x 100 backends", Size(1000, 1000, 100), ALL_POOLS, 2000),
)


@dataclass(frozen=True)
class Round:
    """What a round gave: the stream left alone, and during reloads."""

    quiet: Stream
    busy: Stream
    reloads: tuple[tuple[str, Reload], ...]

    def gap_ratio(self) -> float:
        """Return how much longer the gaps' p99.9 was during the reloads."""
        quiet, busy = (quantile(s.gaps_ms(BURST_MS), 0.999) for s in (self.quiet, self.busy))
        return busy / quiet


def measure_round(
    prober: Prober, way: Way, changes: Iterator[Callable[[], tuple[str, Reload]]]
) -> Round:
    """Leave the stream alone, then change until as much time has passed, at least once."""
    running = prober.start(way, RATE, RATE * LONGEST_S)
    time.sleep(WARM_UP_S)
    begin = time.time_ns()
    time.sleep(SHORTEST_S)
    middle = time.time_ns()
    reloads = list[tuple[str, Reload]]()
    while not reloads or time.time_ns() < 2 * middle - begin:
        reloads.append(next(changes)())
    end = time.time_ns()
    stream = running.stop()
    return Round(stream.between(begin, middle), stream.between(middle, end), tuple(reloads))


def measure(case: Case, rounds: int) -> list[Round]:
    """Run a node of the case's size, and change it."""
    with Lab() as lab, tempfile.TemporaryDirectory(dir=MEMORY) as place:
        stage, directory = Stage(lab), Path(place)
        prober, way = Prober(directory), way_through_node(stage)
        with changing(stage, directory, case.size) as node:
            changes = case.changes(node)
            return [measure_round(prober, way, changes) for _ in range(rounds)]


def disturbance(streams: Sequence[Stream]) -> dict[str, object]:
    """Return what the streams of all rounds met."""
    gaps = sorted(gap for stream in streams for gap in stream.gaps_ms(BURST_MS))
    delays = sorted(delay for stream in streams for delay in stream.delays_ms())
    return {
        "packets": sum(len(stream.sent) for stream in streams),
        "lost": sum(stream.lost for stream in streams),
        "gaps_ms": quantiles(gaps),
        "delays_ms": quantiles(delays),
    }


def times(rounds: Sequence[Round]) -> dict[str, object]:
    """Return how long each kind of change took, over all rounds."""
    kinds: dict[str, list[Reload]] = {}
    for name, reload in (named for round_ in rounds for named in round_.reloads):
        kinds.setdefault(name, []).append(reload)
    return {
        name: {
            "reloads": len(reloads),
            "in_service_ms": quantiles(sorted(r.in_service_ms for r in reloads)),
        }
        | {
            f"{key}_ms": quantiles(sorted(getattr(r, f"{key}_ms") for r in reloads))
            for key in ("cpu", "answered")
            if all(r.answered for r in reloads)
        }
        for name, reloads in kinds.items()
    }


def figures(case: Case, rounds: Sequence[Round]) -> dict[str, object]:
    """Return what JSON and picture tell of a case."""
    return {
        "title": case.title,
        "target_ms": case.target_ms,
        "changes": times(rounds),
        "without": disturbance([r.quiet for r in rounds]),
        "during": disturbance([r.busy for r in rounds]),
        "gap_ratio": figure([r.gap_ratio() for r in rounds]).plain(),
    }


def targets(case: Case, rounds: Sequence[Round]) -> list[Target]:
    """Return what is wanted of a case."""
    medians = [
        quantile(sorted(reload.in_service_ms for _, reload in r.reloads), 0.5) for r in rounds
    ]
    wanted = case.target_ms
    return [
        *([at_most(f"change, {case.name}: in service, ms", wanted, medians)] if wanted else []),
        at_most(f"change, {case.name}: packets lost", 0, [r.busy.lost for r in rounds]),
        at_most(
            f"change, {case.name}: p99.9 of the gaps / without a change",
            2,
            [r.gap_ratio() for r in rounds],
        ),
    ]


def show(case: Case, told: Mapping[str, Any]) -> None:
    """Print a case."""
    print(f"{case.name}: {case.title}")
    for name, change in told["changes"].items():
        print(f"  {name:<12} in service  {row(change['in_service_ms'])}  ({change['reloads']})")
        for key, title in (("cpu_ms", "computed"), ("answered_ms", "answered")):
            if key in change:
                print(f"  {'':<12} {title:<11} {row(change[key])}")
    for when in ("without", "during"):
        part = told[when]
        print(f"  {when:<12} gaps        {row(part['gaps_ms'])}")
        print(f"  {'':<12} delays      {row(part['delays_ms'])}  lost {part['lost']}")


def row(values: Mapping[str, float]) -> str:
    """Return quantiles in milliseconds."""
    return "  ".join(f"{name} {value:.4g}" for name, value in values.items()) + " ms"


def main() -> None:
    """Measure, draw and save."""
    chosen = result.options(__doc__, rounds=5).parse_args()
    os.sched_setaffinity(0, {OTHER_CPU})  # and what it starts; the worker goes where it is told
    told, wanted = {}, list[Target]()
    for case in CASES:
        rounds = measure(case, chosen.rounds)
        told[case.name] = figures(case, rounds)
        wanted += targets(case, rounds)
        show(case, told[case.name])
    result.save("reload", chosen, told, wanted)
    draw(told, chosen.out / "reload.png")


if __name__ == "__main__":
    main()
