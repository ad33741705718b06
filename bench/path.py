"""What a packet costs without rings and kernel: nanoseconds and instructions, by step.

Compiles bench/path.c with the flags of the build and runs it over a published state: frames of 64
bytes (the FCS counted) in memory, one flow, 65,536, 1,048,576, and only flows that nobody has
seen; TCP and UDP, IPv4 and IPv6. Instructions are callgrind's, the same in every run. Where it may,
the program runs with real-time priority, on the last core.
"""

import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench import callgrind
from bench.frames import Shape, frame
from bench.measure import figure, paired
from bench.node import NODE_MAC, ROUTER_MAC, forwarding
from bench.program import build
from bench.result import options, save
from bench.target import Target, at_most
from lbfwd.tables import FILES, Tables

FLOWS = 1048576
BURSTS, BURST_PACKETS = 4096, 64
COUNTED_BURSTS, WARM_BURSTS = 64, 2  # instructions: of one flow, which is warm after two
STEPS = ("identify", "choose", "emit", "count")
SHAPES = {
    "IPv4 TCP": Shape(64, 4, "tcp-ack"),
    "IPv4 UDP": Shape(64, 4, "udp"),
    "IPv6 TCP": Shape(78, 6, "tcp-ack"),  # the smallest that there is, with the FCS
    "IPv6 UDP": Shape(66, 6, "udp"),
}
WORKERS = (1, 2, 8)
MEMORY = Path("/dev/shm")  # the flow table lies in memory, as below /run

Rounds = dict[str, list[list[float]]]  # scenario → rounds → total, then each step


def command(program: Path, directory: Path, rounds: int, bursts: int) -> list[str]:
    """Return the program's command line."""
    files = [str(directory / name) for name in FILES]
    return [str(program), *files, str(directory / "frame"), str(rounds), str(bursts)]


def publish(directory: Path, workers: int, shape: Shape) -> Tables:
    """Publish the state, and write the frame that all frames are made of."""
    node = Tables.create(directory, workers, FLOWS)
    node.publish(forwarding())
    (directory / "frame").write_bytes(frame(shape, NODE_MAC, ROUTER_MAC))
    return node


def favour() -> None:
    """Take the last core, before others where that is allowed."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        print("path: without real-time priority", file=sys.stderr)


def time_path(program: Path, place: Path, workers: int, shape: Shape, rounds: int) -> Rounds:
    """Return nanoseconds a packet."""
    node = publish(place, workers, shape)
    run = command(program, place, rounds, BURSTS)
    done = subprocess.run(run, check=True, capture_output=True, text=True, preexec_fn=favour)
    node.close(unlink=True)
    values: Rounds = defaultdict(list)
    for row in done.stdout.splitlines():
        scenario, *figures = row.split("\t")
        values[scenario].append([float(text) for text in figures])
    return values


def instructions(program: Path, place: Path, workers: int, shape: Shape) -> dict[str, float]:
    """Return instructions a packet of one established flow, by source file, and in all."""
    node = publish(place, workers, shape)
    run = [*command(program, place, 1, COUNTED_BURSTS), "one flow"]
    counted = callgrind.count(run, "step_*", place / "callgrind")
    node.close(unlink=True)
    packets = (COUNTED_BURSTS + WARM_BURSTS) * BURST_PACKETS
    files = {name: round(n / packets, 1) for name, n in counted.items() if n > packets}
    return {"all": round(sum(counted.values()) / packets, 1)} | files


def summary(values: Rounds) -> dict[str, object]:
    """Return the figures of each scenario: in all, and by step."""
    parts = ("all", *STEPS)
    return {
        scenario: {
            part: figure([round_[i] for round_ in rounds]).plain() for i, part in enumerate(parts)
        }
        for scenario, rounds in values.items()
    }


def totals(values: Rounds, scenario: str) -> list[float]:
    """Return a scenario's nanoseconds, a value a round."""
    return [round_[0] for round_ in values[scenario]]


def targets(ipv4: Rounds, counted: Mapping[str, Mapping[str, float]]) -> Sequence[Target]:
    """Return what the issue wants of the path."""
    one = totals(ipv4, "one flow")
    return (
        at_most("path, IPv4: instructions a packet", 350, [counted["IPv4 TCP"]["all"]]),
        at_most("path, IPv6: instructions a packet", 430, [counted["IPv6 TCP"]["all"]]),
        at_most("path, 65,536 flows ÷ one flow", 1.3, paired(totals(ipv4, "65536 flows"), one)),
        at_most(
            "path, 1,048,576 flows ÷ one flow", 1.8, paired(totals(ipv4, "1048576 flows"), one)
        ),
        at_most("path, a miss with insert ÷ one flow", 2, paired(totals(ipv4, "miss"), one)),
        at_most(
            "path, instructions a packet with 8 workers ÷ with one",
            1.02,
            [counted["IPv4 TCP, 8 workers"]["all"] / counted["IPv4 TCP"]["all"]],
        ),
    )


def main() -> int:
    """Measure, print and write."""
    chosen = options(__doc__, rounds=9).parse_args()
    timed: dict[str, Rounds] = {}
    counted: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as name:
        place = Path(name)
        program = build("path", place)
        for label, shape in SHAPES.items():
            timed[label] = time_path(program, place, 1, shape, chosen.rounds)
            counted[label] = instructions(program, place, 1, shape)
        for workers in WORKERS[1:]:
            label = f"IPv4 TCP, {workers} workers"
            timed[label] = time_path(program, place, workers, SHAPES["IPv4 TCP"], chosen.rounds)
            counted[label] = instructions(program, place, workers, SHAPES["IPv4 TCP"])
    wanted = targets(timed["IPv4 TCP"], counted)
    times = {label: summary(values) for label, values in timed.items()}
    save("path", chosen, {"nanoseconds": times, "instructions": counted}, wanted)
    for label, values in timed.items():
        for scenario in values:
            print(f"  {label}: {scenario}: {figure(totals(values, scenario))} ns")
    return 0


if __name__ == "__main__":
    sys.exit(main())
