"""Requests by which nodes of a fleet are compared. They look and change nothing."""

from typing import Protocol

from aiohttp import web

from lbfwd.api.respond import json_response
from lbfwd.fleet.peers import RESOURCE, Readiness
from lbfwd.supervisor.changes import Forecast
from lbfwd.supervisor.summary import Summary

LONGEST_NAME = 64


class FleetAnswers(Protocol):
    """A node that can be compared with others."""

    async def summary(self) -> Summary:
        """Return what nodes of a fleet compare."""

    async def readiness(self) -> Readiness:
        """Return whether the node takes packets."""

    async def candidate(self, name: str) -> Forecast:
        """Return what a candidate in etcd would do. Raises ConfigError or SupervisorError."""


def add_routes(application: web.Application, control: FleetAnswers) -> None:
    """Add this group's routes."""

    async def summary(_request: web.Request) -> web.Response:
        """Tell of the node what is compared with others of its fleet."""
        return json_response(await control.summary())

    async def ready(_request: web.Request) -> web.Response:
        """Whether the node takes packets: status 200, or 503 and why not."""
        found = await control.readiness()
        return json_response(found, status=200 if found.ready else 503)

    async def candidate(request: web.Request) -> web.Response:
        """Tell what a configuration would do that waits in etcd: ?name=NAME."""
        return json_response(await control.candidate(_name(request)))

    application.router.add_get("/v1/summary", summary)
    application.router.add_get("/v1/candidate", candidate)
    application.router.add_get(RESOURCE, ready)


def _name(request: web.Request) -> str:
    """Read which candidate is meant. Raises HTTPBadRequest."""
    name = request.query.get("name", "")
    if set(request.query) != {"name"} or not name.isalnum() or len(name) > LONGEST_NAME:
        raise web.HTTPBadRequest(text=f"name: one, up to {LONGEST_NAME} letters and digits")
    return name
