"""What the verbs that talk to the running lbfwd share: where it is, asking, JSON or text."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

DEFAULT_RUNTIME_DIR = "/run/lbfwd"


def add_runtime_dir(parser: argparse.ArgumentParser) -> None:
    """Add the option that says which lbfwd of this machine is meant."""
    parser.add_argument(
        "--runtime-dir", metavar="DIR", default=DEFAULT_RUNTIME_DIR, help="default: %(default)s"
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a verb that asks the running lbfwd."""
    add_runtime_dir(parser)
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")


def ask(args: argparse.Namespace, method: str, path: str, show: Callable[[bytes], None]) -> int:
    """Ask the admin socket; print the answer as JSON, or have it shown. Returns the exit code."""
    from lbfwd.api.client import ApiError, request
    from lbfwd.supervisor.runtime import ADMIN_SOCKET

    try:
        body = request(Path(args.runtime_dir) / ADMIN_SOCKET, method, path)
    except ApiError as error:
        print(*error.problems, sep="\n", file=sys.stderr)
        return 1
    if args.json:
        print(body.decode())
    else:
        show(body)
    return 0
