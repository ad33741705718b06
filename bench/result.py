"""The result of a benchmark: one JSON file, which the pictures and the table are made from."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.ending import end_cleanly
from bench.machine import machine
from bench.target import Target

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "benchmarks"


def options(description: str | None, rounds: int) -> argparse.ArgumentParser:
    """Return the options that every benchmark has. From here on it ends in order."""
    end_cleanly()
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=rounds, help="interleaved rounds")
    parser.add_argument("--out", type=Path, default=RESULTS, help="directory of the results")
    return parser


def save(
    name: str,
    chosen: argparse.Namespace,
    figures: Mapping[str, object],
    targets: Sequence[Target] = (),
) -> dict[str, object]:
    """Write NAME.json and print where. `figures` may be anything that JSON can hold."""
    result: dict[str, object] = {
        "bench": name,
        "machine": machine(),
        "rounds": chosen.rounds,
        "figures": figures,
        "targets": [target.plain() for target in targets],
    }
    chosen.out.mkdir(parents=True, exist_ok=True)
    path = chosen.out / f"{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"{name}: results in {path}")
    for target in targets:
        print(line(target))
    return result


def line(target: Target) -> str:
    """Return a row of the table of targets."""
    bound = f"{'≥' if target.at_least else '≤'} {target.bound:g}"
    verdict = "reached" if target.reached else "not reached"
    return f"  {target.name:<68} {bound:>8}   {target.figure!s:<32} {verdict}"
