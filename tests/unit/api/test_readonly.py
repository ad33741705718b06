"""The read-only listener: what it answers, and what it has no ear for."""

import asyncio
import json
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from lbfwd.api.readonly import application
from lbfwd.flow import Flow
from lbfwd.supervisor.status import Status
from lbfwd.supervisor.trace import Trace
from tests.unit.api.values import status

STATUS = status()


class Node:
    async def status(self) -> Status:
        return STATUS

    async def trace(self, flow: Flow) -> Trace:
        raise NotImplementedError(str(flow))

    async def flows(self) -> Any:
        raise NotImplementedError

    async def scrape(self) -> list[bytes]:
        return [b"lbfwd_generation 42\n", b"", b"lbfwd_last_reload_successful 1.0\n"]


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


def test_status_is_the_admin_sockets() -> None:
    code, _kind, body = ask("GET", "/v1/status")
    assert code == 200
    assert json.loads(body) == json.loads(STATUS.model_dump_json())


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
    routes = application(Node()).router.routes()
    assert {route.method for route in routes} <= {"GET", "HEAD"}
