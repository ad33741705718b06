"""``lbfwd doctor``: what is wrong with this node or backend, why it matters, and what helps."""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from lbfwd.cli.ask import add_options, admin_socket
from lbfwd.cli.run import DEFAULT_CONFIG

if TYPE_CHECKING:
    from rich.console import Console

    from lbfwd.doctor.finding import Finding

HELP = "Find out what is wrong with this node or backend. Exit code 1: something is broken."

_STYLES = {"ok": "green", "warn": "yellow", "broken": "bold red"}
_INDENT = 7


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_options(parser)
    parser.add_argument(
        "role", nargs="?", choices=("node", "backend"), help="default: what this machine is"
    )
    parser.add_argument(
        "-c", "--config", metavar="FILE", default="", help=f"default: {DEFAULT_CONFIG}"
    )
    group = parser.add_argument_group("a backend that was set up without lbfwd backend")
    group.add_argument("--vip", action="append", default=[], metavar="ADDRESS")
    group.add_argument("--node", action="append", default=[], metavar="ADDRESS")


def run(args: argparse.Namespace) -> int:
    """Look, and print. 1: something is broken, or nothing can be said."""
    from lbfwd.backend.request import BackendError
    from lbfwd.doctor.backend_facts import is_backend

    if os.geteuid() != 0:
        return _fail("needs root: it looks at nftables, other processes and the hash_key's file")
    roles = [args.role] if args.role else _roles(args, is_backend())
    if not roles:
        return _fail(
            f"this machine is neither a node (no lbfwd in {args.runtime_dir}, no {_config(args)}) "
            "nor a backend (no lbfwd backend runs): say lbfwd doctor node, or lbfwd doctor backend"
        )
    try:
        found = {role: _examine(role, args) for role in roles}
    except BackendError as error:
        return _fail(str(error))
    if args.json:
        print(json.dumps({r: [asdict(f) for f in some] for r, some in found.items()}, indent=2))
    else:
        _show(found)
    return 1 if any(f.level == "broken" for some in found.values() for f in some) else 0


def _roles(args: argparse.Namespace, backend: bool) -> list[str]:
    """Find out what this machine is; it may be both."""
    node = admin_socket(args).exists() or Path(_config(args)).exists()
    return ["node"] * node + ["backend"] * backend


def _config(args: argparse.Namespace) -> str:
    return args.config or DEFAULT_CONFIG


def _examine(role: str, args: argparse.Namespace) -> tuple["Finding", ...]:
    from lbfwd.backend.request import BackendError, parse
    from lbfwd.doctor import backend_facts, node
    from lbfwd.doctor.run import examine_backend, examine_node

    if role == "node":
        return examine_node(node.collect(Path(args.runtime_dir), args.config, DEFAULT_CONFIG))
    request = parse(args.vip, args.node)
    facts = backend_facts.collect(request.vips, request.nodes)
    if not facts.vips or not facts.nodes:
        raise BackendError("lbfwd backend does not run here: name every --vip and --node")
    return examine_backend(facts)


def _show(found: Mapping[str, Sequence["Finding"]]) -> None:
    from rich.console import Console

    console = Console(highlight=False)  # soft_wrap below: a command is copied as one line
    for role, some in found.items():
        for finding in some:
            _show_one(console, finding)
        counts = {level: sum(f.level == level for f in some) for level in _STYLES}
        summary = ", ".join(f"{count} {level}" for level, count in counts.items())
        console.print(f"{role}: {summary}", style="bold")


def _show_one(console: "Console", finding: "Finding") -> None:
    from rich.text import Text

    level = f"{finding.level:<{_INDENT}}", _STYLES[finding.level]
    console.print(Text.assemble(level, f"{finding.check}: {finding.what}"), soft_wrap=True)
    if finding.why:
        console.print(Text(" " * _INDENT + finding.why, style="dim"), soft_wrap=True)
    if finding.fix:
        console.print(Text(f"{' ' * _INDENT}fix: {finding.fix}"), soft_wrap=True)


def _fail(text: str) -> int:
    for line in text.splitlines():
        print(f"lbfwd doctor: {line}", file=sys.stderr)
    return 1
