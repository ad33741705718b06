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
from structlog.testing import capture_logs

from lbfwd.backend import registrar as module
from lbfwd.backend.registrar import EtcdRegistrar, HttpsRegistrar, Views
from lbfwd.fleet.etcd_wire import Value
from lbfwd.fleet.registration import Registration

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

    nodes = node(refuse, []), node(late, told, withdrawn)
    views = asyncio.run(over_http(*nodes, withdraw=True))[KEY]
    assert [(view.state, view.reason) for view in views] == [("refused", "no"), ("active", "")]
    assert told == ["PUT", "DELETE"]


def test_what_cannot_be_read_counts_as_a_node_with_flows() -> None:
    async def strange() -> web.Response:
        return web.Response(text=LATER)

    (view,) = asyncio.run(over_http(node(strange, [])))[KEY]
    assert (view.state, view.flows) == ("active", None)
    assert "cannot be read" in view.reason


def test_two_pools_of_a_node_that_answers_for_one_of_them() -> None:
    """What came last about the node was good, and of the other pool nothing was known."""
    mail = ("mail", "a")

    async def main() -> Views:
        app, answered = web.Application(), asyncio.Event()

        async def slow(_request: web.Request) -> web.Response:
            await answered.wait()
            answered.clear()
            return web.Response(text=ACTIVE)

        async def busy(_request: web.Request) -> web.Response:
            answered.set()
            return web.json_response({"error": "more than 10 requests a second"}, status=429)

        app.router.add_put(PATH, slow)
        app.router.add_put("/v1/backends/mail/a", busy)
        async with TestServer(app) as one, aiohttp.ClientSession() as session:
            url = str(one.make_url("")).rstrip("/")
            registrar = HttpsRegistrar(session, [url], ssl.create_default_context(), 30)
            return await registrar.announce(SAID | {mail: SAID[KEY]})

    views = asyncio.run(main())
    assert [view.reason for view in views[mail]] == ["more than 10 requests a second"]
    assert [view.node for view in views[KEY]] == ["lb1"]


def test_what_remains_at_a_node_is_said_though_it_took_the_rest_back() -> None:
    """Of two pools it answers for the last one only."""
    both = {KEY: SAID[KEY], ("mail", "a"): SAID[KEY]}

    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=503 if request.path == PATH else 200, text="{}")

    async def main() -> list[Any]:
        app = web.Application()
        app.router.add_delete("/v1/backends/{pool}/{name}", answer)
        async with TestServer(app) as server, aiohttp.ClientSession() as session:
            urls = [str(server.make_url("")).rstrip("/")]
            with capture_logs() as logs:
                tls = ssl.create_default_context()
                await HttpsRegistrar(session, urls, tls, 30).withdraw(both)
            return logs

    assert [entry["event"] for entry in asyncio.run(main())] == ["registration_remains"]


def test_a_node_that_answers_no_more_is_unknown_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> list[str]:
        async def good() -> web.Response:
            return web.Response(text=ACTIVE)

        async with node(good, []) as one, aiohttp.ClientSession() as session:
            gone = "http://127.0.0.1:1"  # tcpmux: nobody listens
            urls = [str(one.make_url("")).rstrip("/"), gone]
            registrar = HttpsRegistrar(session, urls, ssl.create_default_context(), 30)
            first = (await registrar.announce(SAID))[KEY]
            monkeypatch.setattr(module, "UNHEARD_S", 0.0)
            last = (await registrar.announce(SAID))[KEY]
        assert [view.node for view in last] == ["lb1", gone]
        return [view.state for view in (*first, *last)]

    assert asyncio.run(main()) == ["active", "active", "active", "unknown"]


class Etcd:
    """Grants every wish; ``views``: what nodes wrote."""

    def __init__(self, views: Mapping[str, str]) -> None:
        self.write(views)

    def write(self, views: Mapping[str, str]) -> None:
        self._views = {key: Value(text, 1) for key, text in views.items()}

    async def grant(self, _ttl: int) -> int:
        return 1

    async def keep_alive(self, _lease: int) -> int:
        return 30

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


def test_a_node_whose_view_is_gone_from_etcd_is_unknown_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    etcd = Etcd({"views/web/a/lb1": ACTIVE, "views/web/a/lb2": ACTIVE.replace("lb1", "lb2")})
    registrar = EtcdRegistrar(cast("Any", etcd), "", 30)

    async def states() -> list[tuple[str, str]]:
        return [(view.node, view.state) for view in (await registrar.announce(SAID))[KEY]]

    assert asyncio.run(states()) == [("lb1", "active"), ("lb2", "active")]
    etcd.write({"views/web/a/lb1": ACTIVE})
    assert asyncio.run(states()) == [("lb1", "active"), ("lb2", "active")]
    monkeypatch.setattr(module, "UNHEARD_S", 0.0)
    assert asyncio.run(states()) == [("lb1", "active"), ("lb2", "unknown")]
