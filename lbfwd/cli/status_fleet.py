"""``lbfwd status --fleet``: all nodes beside each other, and whether they agree."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from lbfwd.cli.ask import fetch

if TYPE_CHECKING:
    from lbfwd.fleet.ask import Answer
    from lbfwd.fleet.compare import Differences
    from lbfwd.supervisor.summary import Summary

NAMES_SHOWN = 5
COLUMNS = ("node", "version", "generation", "ready since", "configuration", "etcd", "differs")


def run(args: argparse.Namespace) -> int:
    """Ask the nodes that this one knows. Returns 1 when they differ, or one does not answer."""
    from lbfwd.api.client import ApiError
    from lbfwd.fleet.ask import ask_all
    from lbfwd.fleet.compare import compare
    from lbfwd.supervisor.summary import Summary

    try:
        nodes = fetch(args, "/v1/summary", Summary).nodes
    except ApiError as error:
        print(*error.problems, sep="\n", file=sys.stderr)
        return 1
    if not nodes:
        print("[fleet] nodes is empty on this node: nobody to ask", file=sys.stderr)
        return 1
    answers = ask_all(nodes, "/v1/summary", Summary)
    found = compare(answers)
    _print(args, answers, found)
    return 1 if any(each.any for each in found) else 0


def _print(
    args: argparse.Namespace,
    answers: "Sequence[Answer[Summary]]",
    found: "Sequence[Differences]",
) -> None:
    if args.json:
        rows = [
            {
                "node": answer.node,
                "summary": answer.found and answer.found.model_dump(mode="json"),
                "differs": asdict(each),
            }
            for answer, each in zip(answers, found, strict=True)
        ]
        agree = not any(each.any for each in found)
        print(json.dumps({"agree": agree, "nodes": rows}, indent=2))
        return
    from lbfwd.cli.status import console, table

    shown = map(row, answers, found)
    console().print(table("fleet", COLUMNS, shown))


def row(answer: "Answer[Summary]", found: "Differences") -> tuple[object, ...]:
    """Return a node's row of the table."""
    differs = "; ".join(differences(found)) or "-"
    summary = answer.found
    if summary is None:
        return (answer.node, *["-"] * 5, differs)
    ready = summary.ready.strftime("%Y-%m-%d %H:%M:%SZ") if summary.ready else "not ready"
    return (
        answer.node,
        summary.version,
        summary.generation,
        ready,
        summary.configuration,
        _etcd(summary),
        differs,
    )


def _etcd(summary: "Summary") -> str:
    shared = summary.shared
    if shared is None:
        return "-"
    revision = "none" if shared.revision is None else str(shared.revision)
    return f"{revision}, etcd is away" if shared.etcd_problem else revision


def differences(found: "Differences") -> Iterator[str]:
    """Yield what is different, for people."""
    yield from found.problems
    if found.configuration:
        yield "configuration"
    if found.services:
        more = len(found.services) - NAMES_SHOWN
        names = ", ".join(found.services[:NAMES_SHOWN])
        yield f"services: {names}{f' and {more} more' if more > 0 else ''}"
