"""Registering at nodes over real HTTP, and in an etcd that holds what others wrote."""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from lbfwd.backend.registrar import EtcdRegistrar, HttpsRegistrar, Views
from lbfwd.fleet.etcd_wire import Value
from lbfwd.fleet.registration import Registration, RegistrationError

KEY = ("web", "a")
SAID = {KEY: Registration(address=ip_address("10.0.0.11"), since=1.5)}
PATH = "/v1/backends/web/a"
ACTIVE = '{"node": "lb1", "state": "active", "since": 1.5}'
LATER = '{"node": "lb1", "state": "moving house", "since": 1.5}'  # of a version to come


def node(
    put: Callable[[], Any], told: list[str], withdrawn: asyncio.Event | None = None
) -> TestServer:
    """A node; what it was told is noted when it was done."""

    async def answer(request: web.Request) -> web.Response:
        found = await put() if request.method == "PUT" else web.Response(text="{}")
        told.append(request.method)
        if withdrawn and request.method == "DELETE":
            withdrawn.set()
        return cast("web.Response", found)

    app = web.Application()
    app.router.add_route("*", PATH, answer)
    return TestServer(app)


async def over_http(*nodes: TestServer, withdraw: bool = False) -> Views:
    for each in nodes:
        await each.start_server()
    try:
        async with aiohttp.ClientSession() as session:
            urls = [str(each.make_url("")).rstrip("/") for each in nodes]
            registrar = HttpsRegistrar(session, urls, ssl.create_default_context(), 30)
            try:
                return await registrar.announce(SAID)
            finally:
                if withdraw:
                    await registrar.withdraw(SAID)
    finally:
        for each in nodes:
            await each.close()


def test_a_refusal_of_one_node_waits_for_the_others_before_it_is_taken_back_there() -> None:
    told: list[str] = []
    withdrawn = asyncio.Event()

    async def refuse() -> web.Response:
        return web.json_response({"error": "no"}, status=403)

    async def late() -> web.Response:
        with suppress(TimeoutError):  # as on a slow way: time enough to come too early
            async with asyncio.timeout(0.3):
                await withdrawn.wait()
        return web.Response(text=ACTIVE)

    with pytest.raises(RegistrationError, match="no"):
        asyncio.run(over_http(node(refuse, []), node(late, told, withdrawn), withdraw=True))
    assert told == ["PUT", "DELETE"]


def test_what_cannot_be_read_counts_as_a_node_with_flows() -> None:
    async def strange() -> web.Response:
        return web.Response(text=LATER)

    (view,) = asyncio.run(over_http(node(strange, [])))[KEY]
    assert (view.state, view.flows) == ("active", None)
    assert "cannot be read" in view.reason


class Etcd:
    """Grants every wish; ``views``: what nodes wrote."""

    def __init__(self, views: Mapping[str, str]) -> None:
        self._views = {key: Value(text, 1) for key, text in views.items()}

    async def grant(self, _ttl: int) -> int:
        return 1

    async def get(self, _key: str) -> None:
        return None

    async def put(self, *_args: object, **_named: object) -> int:
        return 1

    async def get_prefix(self, _prefix: str) -> tuple[Mapping[str, Value], int]:
        return self._views, 1


def test_a_view_in_etcd_that_cannot_be_read_hides_no_other() -> None:
    etcd = Etcd({"views/web/a/lb1": ACTIVE, "views/web/a/lb%2F2": "no JSON"})
    views = asyncio.run(EtcdRegistrar(cast("Any", etcd), "", 30).announce(SAID))[KEY]
    assert [(view.node, view.state) for view in views] == [("lb1", "active"), ("lb/2", "active")]
    assert "cannot be read" in views[1].reason
