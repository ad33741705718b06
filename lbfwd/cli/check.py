"""``lbfwd check FILE``: every error and warning of a configuration; nothing is changed."""

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from lbfwd.config import Config, ConfigError, Problem, load
from lbfwd.config.machine import this_machine
from lbfwd.config.warn import warnings

HELP = "Check a configuration file against its rules and this machine; change nothing."


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found; ``summary`` is one line for a configuration without errors."""

    errors: tuple[Problem, ...]
    warnings: tuple[Problem, ...] = ()
    summary: str = ""


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
        return Verdict((), warnings(config, file), _summary(config, file))
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


def _print_text(verdict: Verdict) -> None:
    _print_problems("error", verdict.errors)
    _print_problems("warning", verdict.warnings)
    if verdict.summary:
        print(verdict.summary)


def _print_problems(kind: str, problems: Iterable[Problem]) -> None:
    for problem in problems:
        print(f"{kind}: {problem}", file=sys.stderr)
