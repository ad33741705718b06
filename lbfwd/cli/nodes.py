"""The nodes that a verb asks: this machine's by its socket, others by their listeners."""

import argparse
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from lbfwd.cli.ask import admin_socket

if TYPE_CHECKING:
    from pydantic import BaseModel

DEFAULT_PORT = 9108  # of [metrics] listen
_MOST_AT_ONCE = 16
_NODE = re.compile(r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<host>[\w.-]+))(?::(?P<port>[0-9]{1,5}))?")

T = TypeVar("T")
Item = TypeVar("Item")
Model = TypeVar("Model", bound="BaseModel")


@dataclass(frozen=True)
class Place:
    """Where a node is asked: a socket of this machine, or host and port."""

    where: Path | tuple[str, int]

    def __str__(self) -> str:
        """Return it for messages."""
        return str(self.where) if isinstance(self.where, Path) else "{} port {}".format(*self.where)

    def get(self, kind: "type[Model]", resource: str, timeout_s: float | None = None) -> "Model":
        """Ask for an answer of this kind. Raises ApiError."""
        return self._read(kind, "GET", resource, None, timeout_s)

    def post(self, kind: "type[Model]", resource: str, body: object) -> "Model":
        """Ask to do something. Raises ApiError."""
        return self._read(kind, "POST", resource, body, None)

    def _read(
        self,
        kind: "type[Model]",
        method: str,
        resource: str,
        body: object,
        timeout_s: float | None,
    ) -> "Model":
        from lbfwd.api import client

        if isinstance(self.where, Path):
            limit_s = timeout_s or client.TIMEOUT_S
            answer = client.request(self.where, method, resource, body, limit_s)
        else:
            limit_s = timeout_s or client.NODE_TIMEOUT_S
            answer = client.request_tcp(*self.where, resource, method, body, limit_s)
        try:
            return kind.model_validate_json(answer)
        except ValueError:
            raise client.ApiError(client.not_understood(self)) from None


def add_nodes(parser: argparse.ArgumentParser) -> None:
    """Add the option that names other nodes."""
    parser.add_argument(
        "--node",
        metavar="HOST[:PORT]",
        dest="nodes",
        action="append",
        type=_node,
        default=[],
        help="ask this node, too, where [metrics] listen serves it; may be repeated "
        f"(default port: {DEFAULT_PORT})",
    )


def places(args: argparse.Namespace) -> list[Place]:
    """Return this machine's node, where one runs or no other is named, and all others."""
    socket = admin_socket(args)
    here = [Place(socket)] if not args.nodes or socket.exists() else []
    return [*here, *map(Place, args.nodes)]


def at_once(do: Callable[[Item], T], items: Sequence[Item]) -> list[T]:
    """Do it with all of them at the same time."""
    with ThreadPoolExecutor(_MOST_AT_ONCE) as threads:
        return list(threads.map(do, items))


def _node(text: str) -> tuple[str, int]:
    found = _NODE.fullmatch(text)
    port = int(found["port"] or DEFAULT_PORT) if found else 0
    if not found or not 0 < port < 65536:
        raise argparse.ArgumentTypeError(f"{text!r}: HOST, HOST:PORT or [ADDRESS]:PORT")
    return found["six"] or found["host"], port
