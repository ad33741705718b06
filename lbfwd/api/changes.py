"""Requests that change the node. Their bodies are JSON objects; docs/changes.md."""

from dataclasses import asdict
from typing import Annotated

from aiohttp import web
from pydantic import Field, ValidationError

from lbfwd.api.body import Body, bad, read
from lbfwd.api.control import Control
from lbfwd.api.peer import user_of
from lbfwd.api.respond import json_response
from lbfwd.supervisor.changes import Terms
from lbfwd.supervisor.operations import Mode

LONGEST_CONFIRM_S = 86_400.0


class PlanBody(Body):
    """``text``: of a file. ``file``: its path, for messages and a hash_key_file beside it."""

    text: str
    file: str


class ReloadBody(Body):
    """``max_moved``: share of a service's buckets, 0 to 1. ``confirm_s``: seconds."""

    max_moved: Annotated[float, Field(ge=0, le=1)] | None = None
    confirm_s: Annotated[float, Field(gt=0, le=LONGEST_CONFIRM_S)] | None = None


class BackendBody(Body):
    """Which backend: by its name, or by its address where no name fits."""

    backend: str
    pool: str | None = None


def add_routes(application: web.Application, control: Control) -> None:
    """Add this group's routes."""
    changes = control.changes

    async def plan(request: web.Request) -> web.Response:
        """Tell what taking up a configuration would do: text, file."""
        body = await read(request, PlanBody)
        return json_response(await changes.plan(body.text, body.file))

    async def reload(request: web.Request) -> web.Response:
        """Read the configuration again and take it up as a whole: max_moved, confirm_s."""
        body = await read(request, ReloadBody)
        terms = Terms(body.max_moved, body.confirm_s)
        return json_response(asdict(await changes.reload(terms, await user_of(request))))

    async def confirm(request: web.Request) -> web.Response:
        """Keep what a reload with confirm_s has taken up."""
        await changes.confirm(await user_of(request))
        return json_response({})

    async def undo(request: web.Request) -> web.Response:
        """Return to the configuration before the last one."""
        return json_response(asdict(await changes.undo(await user_of(request))))

    application.router.add_post("/v1/plan", plan)
    application.router.add_post("/v1/reload", reload)
    application.router.add_post("/v1/confirm", confirm)
    application.router.add_post("/v1/undo", undo)
    _add_operations(application, control)


def _add_operations(application: web.Application, control: Control) -> None:
    async def backend(request: web.Request) -> web.Response:
        """Tell what operators said of a backend, and its live flows: ?backend=NAME&pool=POOL."""
        try:
            asked = BackendBody.model_validate(dict(request.query))
        except ValidationError as error:
            raise bad(error) from None
        return json_response(await control.changes.backend(asked.backend, asked.pool))

    def add(verb: str, ending: str, mode: Mode, does: str) -> None:
        async def begin(request: web.Request) -> web.Response:
            asked = await read(request, BackendBody)
            key = mode, asked.backend, asked.pool, await user_of(request)
            return json_response(await control.changes.operate(*key))

        async def end(request: web.Request) -> web.Response:
            asked = await read(request, BackendBody)
            key = mode, asked.backend, asked.pool, await user_of(request)
            return json_response(await control.changes.end_operation(*key))

        begin.__doc__ = f"{does}: backend, pool."
        end.__doc__ = f"Take a {mode} backend into service again: backend, pool."
        application.router.add_post(f"/v1/{verb}", begin)
        application.router.add_post(f"/v1/{ending}", end)

    application.router.add_get("/v1/backend", backend)
    add("drain", "undrain", "drained", "New flows go elsewhere, live ones stay")
    add("disable", "enable", "disabled", "All flows go elsewhere")
