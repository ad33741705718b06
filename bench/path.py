"""What a packet costs without rings and kernel: ``python bench/path.py [--workers N …]``.

Compiles bench/path.c with the flags of the build, runs it over a published state, and prints JSON:
for each number of workers (whose flow tables a miss looks into) and each scenario nanoseconds a
packet, median and extremes over the rounds, and the ratio to one flow's median. Frames of 60
bytes. The ratios say more than the nanoseconds, which are this machine's.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from ipaddress import ip_address
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.machine import machine
from bench.node import forwarding, segment
from lbfwd.tables import FILES, Tables

ROOT = Path(__file__).resolve().parents[1]
FLOWS = 131072  # twice those of the scenario with many
FRAME_BYTES = 64
FLAGS = ["-O3", "-std=gnu11", "-fno-strict-aliasing", f"-I{ROOT / 'lbfwd'}"]  # as _ring_build.py


def compile_program(directory: Path) -> Path:
    """Build the C program. Raises SystemExit where there is no compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise SystemExit("needs a C compiler (cc)")
    program = directory / "path"
    source = str(ROOT / "bench" / "path.c")
    subprocess.run([compiler, *FLAGS, "-o", str(program), source], check=True)
    return program


def run(program: Path, directory: Path, workers: int, rounds: int) -> dict[str, list[float]]:
    """Return nanoseconds a packet by scenario, a value a round."""
    node = Tables.create(directory, workers, FLOWS)
    node.publish(forwarding())
    frame = directory / "frame"
    frame.write_bytes(segment(ip_address("198.51.100.7").packed, 40000).ljust(FRAME_BYTES, b"\0"))
    files = [str(directory / name) for name in FILES]
    command = [str(program), *files, str(frame), str(rounds)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    node.close(unlink=True)
    values = defaultdict(list)
    for line in done.stdout.splitlines():
        scenario, nanoseconds = line.split("\t")
        values[scenario].append(float(nanoseconds))
    return values


def summary(values: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Return median, extremes and ratio of each scenario."""
    base = statistics.median(values["one flow"])
    return {
        scenario: {
            "ns": statistics.median(column),
            "least": min(column),
            "most": max(column),
            "ratio": round(statistics.median(column) / base, 2),
        }
        for scenario, column in values.items()
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 8])
    chosen = parser.parse_args()
    figures = {}
    with tempfile.TemporaryDirectory() as place:
        program = compile_program(Path(place))
        for workers in chosen.workers:
            figures[f"{workers} workers"] = summary(
                run(program, Path(place), workers, chosen.rounds)
            )
    print(json.dumps({"machine": machine(), "rounds": chosen.rounds} | figures, indent=2))


if __name__ == "__main__":
    main()
