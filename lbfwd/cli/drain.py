"""``lbfwd drain BACKEND``: new flows go elsewhere, live ones stay, until none is left."""

import argparse
import sys
import time
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from lbfwd.cli import operate
from lbfwd.cli.ask import admin_socket, seconds

if TYPE_CHECKING:
    from lbfwd.supervisor.changes import BackendReport

HELP = "Give a backend no new flows; its live ones stay until they end."
LOOK_S = 1.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    operate.configure(parser)
    parser.add_argument(
        "--wait", action="store_true", help="show the flows left until there are none"
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=seconds("0 or more", lambda value: value >= 0),
        help="of --wait: then exit with 1",
    )


def run(args: argparse.Namespace) -> int:
    """Ask, print, and wait if told to; interrupted, the backend stays drained."""
    code = operate.operate(args, "drain")
    return _wait(args) if code == 0 and args.wait else code


def _wait(args: argparse.Namespace) -> int:
    from lbfwd.api.client import ApiError

    deadline = None if args.timeout is None else time.monotonic() + args.timeout
    last = -1
    while True:
        try:
            report = _look(args)
        except ApiError as error:
            print(*error.problems, sep="\n", file=sys.stderr)
            return 1
        if report.flows != last and not args.json:
            print(operate.flows(report), flush=True)
        last = report.flows
        if not report.flows:
            return 0
        if report.mode != "drained":
            print(f"backend {report.backend} is not drained any more", file=sys.stderr)
            return 1
        if deadline is not None and time.monotonic() >= deadline:
            print(f"after {args.timeout:g} s: {operate.flows(report)}", file=sys.stderr)
            return 1
        time.sleep(LOOK_S)


def _look(args: argparse.Namespace) -> "BackendReport":
    from lbfwd.api.client import request
    from lbfwd.supervisor.changes import BackendReport

    asked = {"backend": args.backend} | ({"pool": args.pool} if args.pool else {})
    body = request(admin_socket(args), "GET", f"/v1/backend?{urlencode(asked)}")
    return BackendReport.model_validate_json(body)
