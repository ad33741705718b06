"""The admin socket's client side: one request, one answer, standard library only."""

import http.client
import json
import socket
from pathlib import Path
from typing import Any

from lbfwd.config.problem import Problem

TIMEOUT_S = 30.0


class ApiError(Exception):
    """No answer, or a refusal; ``problems`` holds what is wrong, one text each."""

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a UNIX socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("lbfwd", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def request(path: Path, method: str, resource: str) -> bytes:
    """Ask the lbfwd that listens on the socket ``path``; returns its JSON. Raises ApiError."""
    connection = _UnixConnection(path)
    try:
        connection.request(method, resource)
        response = connection.getresponse()
        body = response.read()
    except (FileNotFoundError, ConnectionRefusedError):
        raise ApiError(f"{path}: no lbfwd runs there (see lbfwd run --runtime-dir)") from None
    except (OSError, http.client.HTTPException) as error:
        raise ApiError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    finally:
        connection.close()
    if response.status != http.client.OK:
        raise ApiError(*_problems(body, response.status))
    return body


def _problems(body: bytes, status: int) -> list[str]:
    try:
        answer: dict[str, Any] = json.loads(body)
        if "problems" in answer:
            return [str(Problem(**problem)) for problem in answer["problems"]]
        return [str(answer["error"])]
    except (ValueError, KeyError, TypeError):
        return [f"the admin socket answered with status {status}"]
