"""The admin socket's server side; every answer is JSON. ``GET /v1`` lists what there is.

``curl --unix-socket /run/lbfwd/admin.sock http://lbfwd/v1/status``; docs/api.md.
"""

import grp
import inspect
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from lbfwd import __version__
from lbfwd.api import answers, changes, fleet, live
from lbfwd.api.control import Control
from lbfwd.api.respond import errors_as_json, json_response, server_log
from lbfwd.config.load import MAX_FILE_BYTES
from lbfwd.supervisor.errors import SupervisorError
from lbfwd.supervisor.runtime import ADMIN_SOCKET

GROUPS = (answers.add_routes, live.add_routes, changes.add_routes, fleet.add_routes)
STOP_S = 3.0  # for answers that are under way
# A whole file, in which a quote and the end of a line are two characters in JSON; and its path.
LARGEST_BODY = 2 * MAX_FILE_BYTES + (64 << 10)


@asynccontextmanager
async def admin_socket(control: Control, directory: Path, group: str) -> AsyncIterator[None]:
    """Serve on ``admin.sock`` in a directory that belongs to us. Raises SupervisorError.

    ``group``: whose members may use it besides its owner; empty: nobody's.
    """
    path = directory / ADMIN_SOCKET
    runner = web.AppRunner(
        application(control), access_log=None, logger=server_log(), shutdown_timeout=STOP_S
    )
    await runner.setup()
    try:
        await web.SockSite(runner, _bind(path, group)).start()
        yield
    finally:
        await runner.cleanup()
        path.unlink(missing_ok=True)


def application(control: Control) -> web.Application:
    """Return all routes of the socket."""
    made = web.Application(middlewares=[errors_as_json], client_max_size=LARGEST_BODY)
    for add_routes in GROUPS:
        add_routes(made, control)
    made.router.add_get("/v1", _list)
    return made


async def _list(request: web.Request) -> web.Response:
    """List what can be asked for."""
    routes = [
        {
            "method": route.method,
            "path": route.resource.canonical if route.resource else "",
            "does": (inspect.getdoc(route.handler) or "").partition("\n")[0],
        }
        for route in request.app.router.routes()
        if route.method != "HEAD"
    ]
    return json_response({"api": 1, "lbfwd": __version__, "routes": routes})


def _bind(path: Path, group: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)  # of one who died; the directory's lock is ours
        sock.bind(str(path))
        # Nobody connects before its mode is right: it does not listen yet.
        os.chown(path, -1, grp.getgrnam(group).gr_gid if group else os.getegid())
        os.chmod(path, 0o660 if group else 0o600)
    except KeyError:
        sock.close()
        raise SupervisorError(
            f'[admin] group = "{group}": this machine has no such group'
        ) from None
    except OSError as error:
        sock.close()
        raise SupervisorError(f"admin socket {path}: {error.strerror or error}") from error
    return sock
