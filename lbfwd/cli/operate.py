"""What drain, undrain, disable and enable share: which backend, and what to print."""

import argparse
import time
from typing import TYPE_CHECKING

from lbfwd.cli.ask import add_options, change

if TYPE_CHECKING:
    from lbfwd.supervisor.changes import BackendReport


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options that say which backend."""
    parser.add_argument("backend", metavar="BACKEND", help="its name, or its address")
    parser.add_argument("--pool", metavar="POOL", help="needed where several pools have it")
    add_options(parser)


def operate(args: argparse.Namespace, verb: str) -> int:
    """Ask for it and print what the backend is now. Returns the exit code."""
    return change(args, f"/v1/{verb}", {"backend": args.backend, "pool": args.pool}, _show)


def _show(body: bytes) -> None:
    from lbfwd.supervisor.changes import BackendReport

    report = BackendReport.model_validate_json(body)
    print(described(report))
    if report.warning:
        print(f"warning: {report.warning}")


def described(report: "BackendReport") -> str:
    """Return a line on a backend."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(report.when))
    state = f"{report.mode} by {report.who} since {when}" if report.mode else "in service"
    return f"backend {report.pool}/{report.backend}: {state}; {flows(report)}"


def flows(report: "BackendReport") -> str:
    """Return how many flows a backend has."""
    closing = f" ({report.closing} of them closing)" if report.closing else ""
    return f"{report.flows} live flow{'' if report.flows == 1 else 's'}{closing}"
