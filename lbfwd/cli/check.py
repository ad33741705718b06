"""``lbfwd check FILE``: every error and warning of a configuration; nothing is changed."""

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lbfwd.config import Config, ConfigError, Problem, load
from lbfwd.config.machine import this_machine
from lbfwd.config.problem import show
from lbfwd.config.warn import warnings

HELP = "Check a configuration file against its rules and this machine; change nothing."


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found; for a configuration without errors ``summary`` is one line about it.

    ``workers``: slot, cpu and the settings in force of each worker.
    """

    errors: tuple[Problem, ...]
    warnings: tuple[Problem, ...] = ()
    summary: str = ""
    workers: tuple[dict[str, object], ...] = ()


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("file", metavar="FILE", type=Path, help="the configuration, TOML")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def run(arguments: argparse.Namespace) -> int:
    """Print the verdict: 0 for a configuration that can be run, 1 for one that cannot."""
    verdict = examine(arguments.file)
    if arguments.json:
        print(json.dumps({"ok": not verdict.errors} | asdict(verdict), indent=2))
    else:
        _print_text(verdict)
    return 1 if verdict.errors else 0


def examine(path: Path) -> Verdict:
    """Check a file; raises nothing: what cannot be asked of the kernel is an error too."""
    file = str(path)
    try:
        config = load(path, machine=this_machine())
        return Verdict((), warnings(config, file), _summary(config, file), _workers(config))
    except ConfigError as error:
        return Verdict(error.problems)
    except OSError as error:
        return Verdict((Problem("this machine", "", "", f"cannot be examined: {error}"),))


def _summary(config: Config, file: str) -> str:
    backends = sum(len(pool.backends) for pool in config.pools)
    counts = {
        "service": len(config.services),
        "pool": len(config.pools),
        "backend": backends,
        "worker": len(config.workers.cpus),
    }
    text = ", ".join(f"{count} {noun}{'' if count == 1 else 's'}" for noun, count in counts.items())
    return f"{file}: good: {text}"


def _workers(config: Config) -> tuple[dict[str, object], ...]:
    return tuple(
        {"slot": slot, "cpu": cpu} | settings.model_dump()
        for slot, (cpu, settings) in enumerate(config.settings_by_cpu.items())
    )


def _print_text(verdict: Verdict) -> None:
    _print_problems("error", verdict.errors)
    _print_problems("warning", verdict.warnings)
    if verdict.summary:
        print(verdict.summary)
        _print_table(verdict.workers)


def _print_problems(kind: str, problems: Iterable[Problem]) -> None:
    for problem in problems:
        print(f"{kind}: {problem}", file=sys.stderr)


def _print_table(rows: Sequence[Mapping[str, object]]) -> None:
    lines = [list(rows[0]), *([show(value).strip('"') for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
