"""All benchmarks, one after another, and the table of targets: ``python -m bench [NAME …]``.

Exits 1 when a target is missed by its whole interval, or a benchmark failed.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from bench.result import RESULTS, line
from bench.target import Target, from_plain

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
)


def run(name: str, out: Path) -> bool:
    """Run one benchmark in a process of its own."""
    print(f"== {name}", flush=True)
    command = [sys.executable, "-m", f"bench.{name}", "--out", str(out)]
    return subprocess.run(command, check=False).returncode == 0


def targets_of(name: str, out: Path) -> list[Target]:
    """Return the targets in a benchmark's result."""
    text = (out / f"{name}.json").read_text(encoding="utf-8")
    return [from_plain(target) for target in json.loads(text)["targets"]]


def main() -> int:
    """Run and report."""
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
    return 1 if failed or any(target.missed for target in targets) else 0


if __name__ == "__main__":
    sys.exit(main())
