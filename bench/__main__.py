"""All benchmarks, one after another, and the table of targets: ``python -m bench [NAME …]``.

Results in their usual place are put into the documents. Exits 1 when a target is missed by its
whole interval, or a benchmark failed.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench import document
from bench.ending import end_cleanly
from bench.result import RESULTS, line
from bench.target import Target, from_plain
from lbfwd.demo.lab import stop

TIDY_S = 120.0  # stopping what a benchmark runs takes up to 10 s a process

BENCHMARKS = (
    "path",
    "flow_table",
    "tables",
    "memory",
    "forward",
    "latency",
    "reload",
    "tuning",
    "metrics",
    "probes",
    "detection",
    "failover",
)


def run(name: str, out: Path) -> bool:
    """Run one benchmark in a process of its own."""
    print(f"== {name}", flush=True)
    command = [sys.executable, "-m", f"bench.{name}", "--out", str(out)]
    begun = time.monotonic()
    success = succeeds(command)
    print(f"{name}: took {time.monotonic() - begun:.0f} s", flush=True)
    return success


def succeeds(command: Sequence[str]) -> bool:
    """Run a command to its end; who ends us ends it, too, and waits until it has tidied up."""
    process = subprocess.Popen(command)
    try:
        return process.wait() == 0
    finally:
        stop(process, TIDY_S)


def targets_of(name: str, out: Path) -> list[Target]:
    """Return the targets in a benchmark's result."""
    text = (out / f"{name}.json").read_text(encoding="utf-8")
    return [from_plain(target) for target in json.loads(text)["targets"]]


def main() -> int:
    """Run and report."""
    end_cleanly()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--out", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    unknown = set(chosen.names) - set(BENCHMARKS)
    if unknown:
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}")
    names = chosen.names or BENCHMARKS
    failed = [name for name in names if not run(name, chosen.out)]
    targets = [t for name in names if name not in failed for t in targets_of(name, chosen.out)]
    print("\nTargets: median of the rounds, its interval")
    for target in targets:
        print(line(target))
    for name in failed:
        print(f"  {name}: failed")
    if chosen.out == RESULTS:
        document.main()
    return 1 if failed or any(target.missed for target in targets) else 0


if __name__ == "__main__":
    sys.exit(main())
