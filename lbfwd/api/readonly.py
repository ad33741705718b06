"""What the TCP listener of ``[metrics] listen`` answers: nothing here acts.

``GET /metrics`` for Prometheus; ``/v1/…`` as on the admin socket, but only what looks. The one
POST, of a live trace, makes workers look for a marked packet for a few seconds: docs/trace.md.
"""

from typing import Protocol

from aiohttp import web

from lbfwd.api import answers, fleet, live
from lbfwd.api.control import Answers
from lbfwd.api.fleet import FleetAnswers
from lbfwd.api.respond import errors_as_json, server_log
from lbfwd.metrics.text import CONTENT_TYPE

LARGEST_BODY = 1024  # a token, and for how long
STOP_S = 1.0  # for answers that are under way


class Readable(Answers, FleetAnswers, Protocol):
    """A node that can be looked at."""

    async def scrape(self) -> list[bytes]:
        """Return all metrics, in Prometheus' text format, in pieces."""


def runner(control: Readable) -> web.AppRunner:
    """Return what answers, to be set up by who listens."""
    return web.AppRunner(
        application(control), access_log=None, logger=server_log(), shutdown_timeout=STOP_S
    )


def application(control: Readable) -> web.Application:
    """Return all routes of the listener."""

    async def metrics(request: web.Request) -> web.StreamResponse:
        """All metrics, in Prometheus' text format."""
        pieces = await control.scrape()
        response = web.StreamResponse(headers={"Content-Type": CONTENT_TYPE})
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
        return response

    made = web.Application(middlewares=[errors_as_json], client_max_size=LARGEST_BODY)
    made.router.add_get("/metrics", metrics)
    answers.add_routes(made, control)
    fleet.add_routes(made, control)
    live.add_routes(made, control)
    return made
