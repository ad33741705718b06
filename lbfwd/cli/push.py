"""``lbfwd push FILE``: one shared configuration for all nodes, by etcd."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from lbfwd.cli.ask import seconds
from lbfwd.cli.run import DEFAULT_CONFIG

if TYPE_CHECKING:
    from lbfwd.fleet.push import Looked, Outcome, Push

HELP = "Show what FILE would do on every node of the fleet, write it to etcd, wait for the nodes."


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    parser.add_argument("file", metavar="FILE", type=Path, help="pools, services, flows: TOML")
    parser.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        type=Path,
        default=Path(DEFAULT_CONFIG),
        help="this node's own configuration, which says where etcd is (default: %(default)s)",
    )
    parser.add_argument("--yes", action="store_true", help="write without asking")
    parser.add_argument("--dry-run", action="store_true", help="show the plans and write nothing")
    parser.add_argument(
        "--partial", action="store_true", help="write even if nodes refuse it or cannot be asked"
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        default=60.0,
        type=seconds("0 or more", lambda value: value >= 0),
        help="how long to wait until the nodes run it (default: %(default)g)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print the outcome as JSON; needs --yes"
    )


def run(args: argparse.Namespace) -> int:
    """Look, ask, write, wait. Returns 1 when nothing was written, or a node does not run it."""
    from lbfwd.config import ConfigError
    from lbfwd.fleet.etcd_wire import EtcdError

    if args.json and not (args.yes or args.dry_run):
        print("lbfwd push: --json asks nobody: it needs --yes or --dry-run", file=sys.stderr)
        return 2
    try:
        return _push(args, _prepare(args))
    except ConfigError as error:
        print(*error.problems, sep="\n", file=sys.stderr)
    except EtcdError as error:
        print(f"lbfwd push: {error}", file=sys.stderr)
    return 1


def _prepare(args: argparse.Namespace) -> "Push":
    """Read both files and check them as one. Raises ConfigError."""
    from lbfwd.config import ConfigError, Problem, load
    from lbfwd.config.load import read_text
    from lbfwd.config.shared import Shared
    from lbfwd.fleet.push import Push

    text = read_text(args.file)
    config = load(args.config, shared=Shared(text, str(args.file), 0))
    for key, there in (
        ("etcd.endpoints", config.etcd.endpoints),
        ("fleet.nodes", config.fleet.nodes),
    ):
        if not there:
            raise ConfigError([Problem(str(args.config), key, "[]", "a push needs at least one")])
    return Push(config, args.config.parent, text)


def _push(args: argparse.Namespace, push: "Push") -> int:
    looked = push.look()
    if not looked.plans:
        return _unchanged(args, push, looked)
    if _show(args, looked) and not args.partial:
        return 1
    if args.dry_run:
        _say(args, "nothing was written: --dry-run", looked)
        return 0
    if not args.yes and not _agreed():
        return 1
    revision = push.write(looked.revision)
    _say(args, f"written: revision {revision}")
    return _wait(args, push, revision)


def _unchanged(args: argparse.Namespace, push: "Push", looked: "Looked") -> int:
    """Say that etcd holds it already; but that does not mean that all nodes run it."""
    text = f"no change: etcd holds this already, at revision {looked.revision}"
    if args.dry_run:
        _say(args, text, looked)
        return 0
    _say(args, text)
    return _wait(args, push, looked.revision)


def _agreed() -> bool:
    try:
        if input("write it? [y/N] ").strip().lower() in ("y", "yes"):
            return True
        _complain("nothing was written")
    except EOFError:
        _complain("nothing was written: nobody is there to answer; see --yes")
    return False


def _show(args: argparse.Namespace, looked: "Looked") -> bool:
    """Show the plans. Returns whether a node objects."""
    from lbfwd.cli.plan import lines
    from lbfwd.fleet.push import grouped, objections

    if not args.json:
        for text, nodes in grouped(looked.plans, lines).items():
            print(f"on {', '.join(nodes)}:", *(f"  {line}" for line in text), sep="\n")
    against = {answer.node: found for answer in looked.plans if (found := objections(answer))}
    for node, reasons in against.items():
        for reason in reasons:
            _complain(f"{node}: {reason}")
    if against and not args.partial:
        _complain(
            f"nothing was written: {len(against)} of {len(looked.plans)} nodes refuse it or did"
            " not answer; see --partial"
        )
    return bool(against)


def _wait(args: argparse.Namespace, push: "Push", revision: int) -> int:
    outcomes = []
    for outcome in push.wait(revision, args.timeout):
        outcomes.append(outcome)
        if outcome.problem:
            _complain(f"{outcome.node}: does not run it: {outcome.problem}")
        else:
            _say(args, f"{outcome.node}: runs it, generation {outcome.generation}")
    digests = {outcome.configuration for outcome in outcomes if not outcome.problem}
    if len(digests) > 1:
        _complain("the nodes are not configured alike: see lbfwd status --fleet")
    if args.json:
        _print_outcomes(revision, outcomes)
    return 1 if len(digests) > 1 or any(outcome.problem for outcome in outcomes) else 0


def _print_outcomes(revision: int, outcomes: "list[Outcome]") -> None:
    print(json.dumps({"revision": revision, "nodes": list(map(asdict, outcomes))}, indent=2))


def _say(args: argparse.Namespace, text: str, looked: "Looked | None" = None) -> None:
    """Say something to people, or what was looked at as JSON, where nothing comes after it."""
    if not args.json:
        print(text)
    elif looked is not None:
        plans = [
            {
                "node": answer.node,
                "plan": answer.found and answer.found.model_dump(mode="json"),
                "problems": answer.problems,
            }
            for answer in looked.plans
        ]
        print(json.dumps({"revision": looked.revision, "plans": plans}, indent=2))


def _complain(text: str) -> None:
    print(text, file=sys.stderr)
