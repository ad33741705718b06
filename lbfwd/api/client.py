"""The client side: one request, one answer, standard library only."""

import grp
import http.client
import json
import os
import socket
import stat
from contextlib import closing
from pathlib import Path
from typing import Any

from lbfwd import __version__
from lbfwd.config.problem import Problem

TIMEOUT_S = 30.0
NODE_TIMEOUT_S = 5.0  # of another node, which may be off


class ApiError(Exception):
    """No answer, or a refusal; ``problems`` holds what is wrong, one text each."""

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


def not_understood(place: object) -> str:
    """Say that an answer is not one of this version: after an update, before the restart."""
    return f"{place}: no answer of an lbfwd {__version__} (lbfwd doctor tells more)"


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a UNIX socket."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("lbfwd", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def request(
    path: Path, method: str, resource: str, body: object = None, timeout_s: float = TIMEOUT_S
) -> bytes:
    """Ask the lbfwd that listens on the socket ``path``; returns its JSON. Raises ApiError.

    ``body``: what JSON can hold; None: no body.
    """
    connection = _UnixConnection(path, timeout_s)
    try:
        with closing(connection):
            connection.connect()
            return _exchange(connection, str(path), method, resource, body)
    except PermissionError:
        raise ApiError(_refusal(path)) from None
    except (FileNotFoundError, ConnectionRefusedError):
        raise ApiError(f"{path}: no lbfwd runs there (see lbfwd run --runtime-dir)") from None
    except OSError as error:
        raise ApiError(f"{path}: {error.strerror or error}") from None


def request_tcp(  # noqa: PLR0913, PLR0917 - where, and a request
    host: str,
    port: int,
    resource: str,
    method: str = "GET",
    body: object = None,
    timeout_s: float = NODE_TIMEOUT_S,
) -> bytes:
    """Look at another node by its read-only listener; returns its JSON. Raises ApiError.

    ``timeout_s``: for the answer; a node that is off is given up sooner.
    """
    connection = http.client.HTTPConnection(host, port, timeout=NODE_TIMEOUT_S)
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        with closing(connection):
            connection.connect()
            connection.sock.settimeout(timeout_s)
            return _exchange(connection, place, method, resource, body)
    except OSError as error:
        raise ApiError(f"{place}: {error.strerror or error}") from None


def _exchange(
    connection: http.client.HTTPConnection,
    place: str,
    method: str,
    resource: str,
    body: object = None,
) -> bytes:
    """Ask and return the body. Raises ApiError."""
    try:
        connection.request(method, resource, None if body is None else json.dumps(body))
        response = connection.getresponse()
        answer = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise ApiError(f"{place}: {getattr(error, 'strerror', None) or error}") from error
    if response.status != http.client.OK:
        raise ApiError(*_problems(answer, response.status, place))
    return answer


def _refusal(path: Path) -> str:
    """Say who may use the socket."""
    try:
        found = path.stat()
        group = grp.getgrgid(found.st_gid).gr_name
    except (OSError, KeyError):
        return f"{path}: permission denied"
    if found.st_mode & stat.S_IWGRP:
        return f"{path}: permission denied: ask for membership in group {group}"
    owner = "root" if found.st_uid == 0 else f"user {found.st_uid}"
    return (
        f"{path}: permission denied: only {owner} may use it, not user {os.geteuid()} "
        "([admin] group lets a group in)"
    )


def _problems(body: bytes, status: int, place: str) -> list[str]:
    try:
        answer: dict[str, Any] = json.loads(body)
        if "problems" in answer:
            return [str(Problem(**problem)) for problem in answer["problems"]]
        return [str(answer["error"])]
    except (ValueError, KeyError, TypeError):
        return [f"{place}: answered with status {status}"]
