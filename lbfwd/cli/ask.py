"""What the verbs that talk to the running lbfwd share: where it is, asking, JSON or text."""

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TypeVar

    from pydantic import BaseModel

    from lbfwd.supervisor.status import Status

    Model = TypeVar("Model", bound=BaseModel)

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


def seconds(rule: str, holds: Callable[[float], bool]) -> Callable[[str], float]:
    """Return what reads an option: a number of seconds for which ``holds``; ``rule`` says which."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and holds(value)):
            raise argparse.ArgumentTypeError(f"{text!r}: seconds, {rule}")
        return value

    return read


def admin_socket(args: argparse.Namespace) -> Path:
    """Return where the lbfwd that is meant listens."""
    from lbfwd.supervisor.runtime import ADMIN_SOCKET

    return Path(args.runtime_dir) / ADMIN_SOCKET


def look(args: argparse.Namespace) -> "Status":
    """Return what the running lbfwd does now. Raises ApiError."""
    from lbfwd.supervisor.status import Status

    return fetch(args, "/v1/status", Status)


def fetch(args: argparse.Namespace, path: str, model: "type[Model]") -> "Model":
    """Return what the running lbfwd answers. Raises ApiError."""
    from lbfwd.api.client import ApiError, not_understood, request

    socket = admin_socket(args)
    body = request(socket, "GET", path)
    try:
        return model.model_validate_json(body)
    except ValueError:
        raise ApiError(not_understood(socket)) from None


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
    from pydantic import ValidationError

    from lbfwd.api.client import ApiError, not_understood, request

    socket = admin_socket(args)
    try:
        answer = request(socket, method, path, body, timeout_s)
        if args.json:
            print(answer.decode())
        else:
            show(answer)
    except ApiError as error:
        print(*error.problems, sep="\n", file=sys.stderr)
        return 1
    except ValidationError:
        print(not_understood(socket), file=sys.stderr)
        return 1
    return 0
