"""``lbfwd tune``: set the kernel and the network cards up for the workers."""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lbfwd.cli.run import DEFAULT_CONFIG

if TYPE_CHECKING:
    from lbfwd.tune.run import Outcome

HELP = (
    "Set kernel limits, receive queues, rings, offloads, packet steering and interrupts of the "
    "node's interfaces. What is right already is left alone. Network cards may lose packets for a "
    "moment: run it before lbfwd."
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "-c", "--config", metavar="FILE", type=Path, default=Path(DEFAULT_CONFIG),
        help="default: %(default)s",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="tell, and change nothing")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def run(args: argparse.Namespace) -> int:
    """Print every change as it is made. 1: something was refused, or the configuration is bad."""
    from lbfwd.config import ConfigError, load
    from lbfwd.config.machine import this_machine
    from lbfwd.tune.machine import act, look
    from lbfwd.tune.run import foresee, tune

    try:
        config = load(args.config, machine=this_machine())
    except ConfigError as error:
        print(*error.problems, sep="\n", file=sys.stderr)
        return 1
    names = config.node.interfaces
    if args.dry_run:
        outcomes = foresee(config, look(names))
    else:
        outcomes = tune(config, lambda: look(names), act)
    found = tuple(outcomes if args.json else _shown(outcomes))
    if args.json:
        print(json.dumps({"dry_run": args.dry_run, "steps": [_row(o) for o in found]}, indent=2))
    else:
        _sum_up(found, args.dry_run)
    return 1 if any(outcome.refused for outcome in found) else 0


def _shown(outcomes: Iterable["Outcome"]) -> Iterator["Outcome"]:
    for outcome in outcomes:
        step = outcome.step
        print(f"{step.what}: {step.old or 'none'} -> {step.new or 'none'}  ({step.why})")
        print(f"    {step.do}")
        if outcome.refused:
            sys.stdout.flush()
            print(f"lbfwd tune: {step.what}: refused: {outcome.refused}", file=sys.stderr)
        yield outcome


def _sum_up(found: tuple["Outcome", ...], dry_run: bool) -> None:
    done = [outcome.step for outcome in found if not outcome.refused]
    if not found:
        print("all is as it should be")
    elif dry_run:
        print(f"{len(done)} changes to make; nothing was changed")
    else:
        print(f"{len(done)} changes made, {len(found) - len(done)} refused")
    if done and not dry_run:
        print("to take them back:", *(f"    {step.undo}" for step in reversed(done)), sep="\n")


def _row(outcome: "Outcome") -> dict[str, str]:
    step = outcome.step
    return {
        "what": step.what,
        "old": step.old,
        "new": step.new,
        "why": step.why,
        "do": str(step.do),
        "undo": str(step.undo),
        "refused": outcome.refused,
    }
