"""What the verbs that talk to the running lbfwd share: where it is, asking, JSON or text."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

DEFAULT_RUNTIME_DIR = "/run/lbfwd"
LONGEST_CHANGE_S = 600.0  # workers are replaced one after another


def add_runtime_dir(parser: argparse.ArgumentParser) -> None:
    """Add the option that says which lbfwd of this machine is meant."""
    parser.add_argument(
        "--runtime-dir", metavar="DIR", default=DEFAULT_RUNTIME_DIR, help="default: %(default)s"
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a verb that asks the running lbfwd."""
    add_runtime_dir(parser)
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")


def change(args: argparse.Namespace, path: str, body: object, show: Callable[[bytes], None]) -> int:
    """Ask the admin socket for a change, which may take its time, as ``ask`` does."""
    return ask(args, "POST", path, show, body, LONGEST_CHANGE_S)


def ask(  # noqa: PLR0913, PLR0917 - a request, and what becomes of its answer
    args: argparse.Namespace,
    method: str,
    path: str,
    show: Callable[[bytes], None],
    body: object = None,
    timeout_s: float = 30.0,
) -> int:
    """Ask the admin socket; print the answer as JSON, or have it shown. Returns the exit code."""
    from lbfwd.api.client import ApiError, request
    from lbfwd.supervisor.runtime import ADMIN_SOCKET

    try:
        socket = Path(args.runtime_dir) / ADMIN_SOCKET
        answer = request(socket, method, path, body, timeout_s)
    except ApiError as error:
        print(*error.problems, sep="\n", file=sys.stderr)
        return 1
    if args.json:
        print(answer.decode())
    else:
        show(answer)
    return 0
