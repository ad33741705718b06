"""Looking for a marked packet: it changes no packet's way; the read-only listener serves it too.

docs/trace.md says why that is safe.
"""

from typing import Annotated

from aiohttp import web
from pydantic import Field, ValidationError

from lbfwd.api.body import Body, bad, read
from lbfwd.api.control import Answers
from lbfwd.api.respond import json_response
from lbfwd.supervisor.live import LONGEST_WATCH_S

Token = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]


class WatchBody(Body):
    """``token``: 16 bytes in hexadecimal digits. ``seconds``: for how long workers look for it."""

    token: Token
    seconds: Annotated[float, Field(gt=0, le=LONGEST_WATCH_S)]


class TokenQuery(Body):
    """Which packet."""

    token: Token


def add_routes(application: web.Application, control: Answers) -> None:
    """Add this group's routes."""

    async def watch(request: web.Request) -> web.Response:
        """Look for a marked packet: token, seconds."""
        body = await read(request, WatchBody)
        return json_response(await control.watch(bytes.fromhex(body.token), body.seconds))

    async def report(request: web.Request) -> web.Response:
        """Tell how the marked packet went, once it was seen or the time is over: ?token=HEX."""
        try:
            asked = TokenQuery.model_validate(dict(request.query))
        except ValidationError as error:
            raise bad(error) from None
        return json_response(await control.report(bytes.fromhex(asked.token)))

    application.router.add_post("/v1/trace/live", watch)
    application.router.add_get("/v1/trace/live", report)
