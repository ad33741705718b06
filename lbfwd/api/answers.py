"""Requests that look and change nothing; the read-only listener serves them too."""

from aiohttp import web

from lbfwd.api.control import Answers
from lbfwd.api.respond import json_response
from lbfwd.flow import Flow, parse
from lbfwd.tables import FlowCount, FlowKey

FLOW = ("protocol", "source", "destination")


def add_routes(application: web.Application, control: Answers) -> None:
    """Add this group's routes."""

    async def status(_request: web.Request) -> web.Response:
        """Everything that the node does now."""
        return json_response(await control.status())

    async def trace(request: web.Request) -> web.Response:
        """Where a flow goes, and why: ?protocol=tcp&source=HOST:PORT&destination=VIP:PORT."""
        return json_response(await control.trace(_flow(request)))

    application.router.add_get("/v1/status", status)

    async def flows(_request: web.Request) -> web.Response:
        """Live flows by service and backend."""
        return json_response({"flows": [_count(*row) for row in (await control.flows()).items()]})

    application.router.add_get("/v1/trace", trace)
    application.router.add_get("/v1/flows", flows)


def _count(key: FlowKey, count: FlowCount) -> dict[str, object]:
    (vip, protocol, port), (pool, backend, address) = key
    return {
        "vip": str(vip),
        "protocol": protocol,
        "port": port or None,
        "pool": pool,
        "backend": backend,
        "address": str(address),
        "live": count.live,
        "closing": count.closing,
    }


def _flow(request: web.Request) -> Flow:
    """Read the flow that is asked for. Raises HTTPBadRequest."""
    if unknown := [name for name in request.query if name not in FLOW]:
        raise web.HTTPBadRequest(text=f"{unknown[0]!r}: no such parameter; {', '.join(FLOW)}")
    if missing := [name for name in FLOW if name not in request.query]:
        raise web.HTTPBadRequest(text=f"{missing[0]} is missing")
    try:
        return parse(*(request.query[name] for name in FLOW))
    except ValueError as error:
        raise web.HTTPBadRequest(text=str(error)) from None
