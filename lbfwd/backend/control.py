"""The socket by which ``pause``, ``resume``, ``status`` and ``leave`` reach a running ``join``."""

import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from aiohttp import web

from lbfwd.api.respond import errors_as_json, json_response, server_log
from lbfwd.backend.agent import Ending, Report
from lbfwd.backend.registrar import LostError
from lbfwd.backend.request import BackendError

SOCKET = "backend.sock"
LONGEST_DRAIN_S = 86_400.0
STOP_S = 3.0


class Controlled(Protocol):
    """A backend that is registered. ``pause`` and ``resume`` raise LostError."""

    def report(self) -> Report:
        """Return how it stands."""

    async def pause(self) -> Report:
        """Ask for no new flows."""

    async def resume(self) -> Report:
        """Ask for new flows again."""


Leave = Callable[[float], Awaitable[Ending]]


@asynccontextmanager
async def control(agent: Controlled, leave: Leave, directory: Path) -> AsyncIterator[None]:
    """Listen in a directory, for root or whoever runs this. Raises BackendError.

    ``leave``: unregister after a drain time in seconds, and end.
    """
    runner = web.AppRunner(
        application(agent, leave), access_log=None, logger=server_log(), shutdown_timeout=STOP_S
    )
    path = directory / SOCKET
    sock = _bind(path)  # before anything is to be undone: the path may be another's
    try:
        await runner.setup()
        await web.SockSite(runner, sock).start()
        yield
    finally:
        await runner.cleanup()
        path.unlink(missing_ok=True)


def application(agent: Controlled, leave: Leave) -> web.Application:
    """Return all routes."""

    async def status(_request: web.Request) -> web.Response:
        return json_response(agent.report())

    async def end(request: web.Request) -> web.Response:
        try:
            drain_s = float((await request.json())["drain_s"])
        except (ValueError, KeyError, TypeError):
            drain_s = -1.0
        if not 0 <= drain_s <= LONGEST_DRAIN_S:
            raise web.HTTPBadRequest(text=f"drain_s: 0 to {LONGEST_DRAIN_S:g} seconds")
        return json_response(await leave(drain_s))

    made = web.Application(middlewares=[errors_as_json])
    made.router.add_get("/v1/status", status)
    made.router.add_post("/v1/pause", _changing(agent.pause))
    made.router.add_post("/v1/resume", _changing(agent.resume))
    made.router.add_post("/v1/leave", end)
    return made


def _changing(change: Callable[[], Awaitable[Report]]) -> Callable[..., Awaitable[web.Response]]:
    async def answer(_request: web.Request) -> web.Response:
        try:
            return json_response(await change())
        except LostError as error:
            reason = f"nobody was told yet, and it is tried again: {error}"
            return json_response({"error": reason}, 500)

    return answer


def _bind(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        if _answers(path):
            raise BackendError(f"{path}: another lbfwd backend join listens there")
        path.unlink(missing_ok=True)
        sock.bind(str(path))
        os.chmod(path, 0o600)  # nobody connects before: it does not listen yet
    except OSError as error:
        sock.close()
        raise BackendError(f"{path}: {error.strerror or error}") from error
    except BackendError:
        sock.close()
        raise
    return sock


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            sock.connect(str(path))
        except OSError:
            return False
        return True
