"""The admin socket's server side: ``GET /status``, ``POST /reload``; every answer is JSON.

``curl --unix-socket /run/lbfwd/admin.sock http://lbfwd/status``
"""

import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from aiohttp import web

from lbfwd.config import ConfigError
from lbfwd.supervisor import log
from lbfwd.supervisor.errors import SupervisorError
from lbfwd.supervisor.plan import NeedsRestart
from lbfwd.supervisor.run import Reloaded
from lbfwd.supervisor.runtime import ADMIN_SOCKET
from lbfwd.supervisor.status import Status

STOP_S = 3.0  # for answers that are under way

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Control(Protocol):
    """What the socket controls."""

    async def status(self) -> Status:
        """Return what the node does now."""

    async def reload(self) -> Reloaded:
        """Take up the configuration anew. Raises ConfigError or SupervisorError."""


@asynccontextmanager
async def admin_socket(control: Control, directory: Path) -> AsyncIterator[None]:
    """Serve on ``admin.sock`` in a directory that belongs to us. Raises SupervisorError."""
    path = directory / ADMIN_SOCKET
    runner = web.AppRunner(_application(control), access_log=None, shutdown_timeout=STOP_S)
    await runner.setup()
    try:
        await web.SockSite(runner, _bind(path)).start()
        yield
    finally:
        await runner.cleanup()
        path.unlink(missing_ok=True)


def _bind(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)  # of one who died; the directory's lock is ours
        sock.bind(str(path))
        os.chmod(path, 0o600)  # nobody connects before: it does not listen yet
    except OSError as error:
        sock.close()
        raise SupervisorError(f"admin socket {path}: {error.strerror or error}") from error
    return sock


def _application(control: Control) -> web.Application:
    async def status(_request: web.Request) -> web.Response:
        answer = await control.status()
        return web.Response(text=answer.model_dump_json(), content_type="application/json")

    async def reload(_request: web.Request) -> web.Response:
        return _json(asdict(await control.reload()))

    application = web.Application(middlewares=[_errors_as_json])
    application.router.add_get("/status", status)
    application.router.add_post("/reload", reload)
    return application


@web.middleware
async def _errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """422: a bad configuration; 409: a good one that needs a restart; 500: it did not work."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        return _json({"error": f"{request.method} {request.path}: {error.reason}"}, error.status)
    except ConfigError as error:
        code = 409 if isinstance(error, NeedsRestart) else 422
        return _json({"problems": [asdict(problem) for problem in error.problems]}, code)
    except SupervisorError as error:
        return _json({"error": str(error)}, 500)
    except Exception as error:
        log.get().exception("request_failed", method=request.method, path=request.path)
        return _json({"error": repr(error)}, 500)


def _json(body: object, status: int = 200) -> web.Response:
    return web.json_response(body, status=status, dumps=json.dumps)
