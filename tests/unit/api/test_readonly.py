"""The read-only listener: what it answers, and what it has no ear for."""

import asyncio
import json
import socket
import struct
from collections.abc import Sequence
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from structlog.testing import capture_logs

from lbfwd.api.readonly import application, runner
from lbfwd.fleet.peers import Readiness
from lbfwd.flow import Flow
from lbfwd.supervisor.status import Status
from lbfwd.supervisor.trace import Trace
from tests.unit.api.values import status

STATUS = status()


class Node:
    pieces: Sequence[bytes] = (b"lbfwd_generation 42\n", b"", b"lbfwd_last_reload_successful 1.0\n")

    async def status(self) -> Status:
        return STATUS

    async def trace(self, flow: Flow) -> Trace:
        raise AssertionError(f"{flow}: no test asks for a flow that makes sense")

    async def flows(self) -> Any:
        raise AssertionError("no test asks for flows")

    async def summary(self) -> Any:
        raise AssertionError("no test asks for a summary")

    async def readiness(self) -> Any:
        raise AssertionError("no test asks whether it is ready")

    async def candidate(self, name: str) -> Any:
        raise AssertionError(f"{name}: no test asks for a candidate")

    async def scrape(self) -> list[bytes]:
        return list(self.pieces)


def ask(method: str, path: str) -> tuple[int, str, str]:
    async def whole() -> tuple[int, str, str]:
        async with TestClient(TestServer(application(Node()))) as client:
            response = await client.request(method, path)
            return response.status, response.headers["Content-Type"], await response.text()

    return asyncio.run(whole())


def test_metrics_are_in_prometheus_text_format() -> None:
    assert ask("GET", "/metrics") == (
        200,
        "text/plain; version=0.0.4; charset=utf-8",
        "lbfwd_generation 42\nlbfwd_last_reload_successful 1.0\n",
    )


def test_a_scraper_that_goes_away_in_the_middle_is_no_bug() -> None:
    node = Node()
    node.pieces = [bytes(1_000_000)] * 50  # more than any buffer on the way

    def leave(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: lbfwd\r\n\r\n")
            assert sock.recv(100)

    async def whole() -> None:
        served = runner(node)
        await served.setup()
        site = web.TCPSite(served, "127.0.0.1", 0)
        await site.start()
        await asyncio.to_thread(leave, served.addresses[0][1])
        await served.cleanup()  # waits for the answer

    with capture_logs() as logs:
        asyncio.run(whole())
    assert logs == []


def test_status_is_the_admin_sockets() -> None:
    code, _kind, body = ask("GET", "/v1/status")
    assert code == 200
    assert json.loads(body) == json.loads(STATUS.model_dump_json())


@pytest.mark.parametrize(("reason", "code"), [("", 200), ("it starts", 503)])
def test_whether_it_is_ready(monkeypatch: pytest.MonkeyPatch, reason: str, code: int) -> None:
    said = Readiness(node="lb1", ready=not reason, reason=reason, configuration="c", roster="r")

    async def readiness(_self: Node) -> Readiness:
        return said

    monkeypatch.setattr(Node, "readiness", readiness)
    found, _kind, body = ask("GET", "/v1/ready")
    assert (found, json.loads(body)) == (code, said.model_dump())


def test_trace_is_there() -> None:
    code, _kind, body = ask("GET", "/v1/trace")
    assert code == 400
    assert "protocol" in json.loads(body)["error"]


@pytest.mark.parametrize("path", ["/v1/reload", "/v1/undo", "/v1/drain", "/metrics", "/v1/status"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_acts(method: str, path: str) -> None:
    code, kind, _body = ask(method, path)
    assert code in {404, 405}
    assert kind.startswith("application/json")


def test_all_of_its_routes_only_look() -> None:
    """A watch for a marked packet does, too, though it is begun by a POST: docs/trace.md."""
    routes = application(Node()).router.routes()
    acting = {route.resource.canonical for route in routes if route.method not in {"GET", "HEAD"}}
    assert acting == {"/v1/trace/live"}
