"""Requests about marked packets, on both listeners; and how refusals arrive."""

import asyncio
import json
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any, cast

import pytest
from aiohttp.test_utils import TestClient, TestServer

from lbfwd.api import readonly, server
from lbfwd.supervisor.errors import Refused, TooSoon
from lbfwd.supervisor.live import LivePacket, LiveReport, LiveWatch

TOKEN = "00112233445566778899aabbccddeeff"
PACKET = LivePacket(
    worker=1, cpu=3, generation=7, seen_at=datetime(2026, 1, 2, tzinfo=UTC), received_on="eth0",
    sent_on="eth1", outcome="forwarded", reason="", chosen_by="flow_table", service="http",
    pool="web", backend="a", address=ip_address("10.0.0.1"),
)  # fmt: skip


class Node:
    changes: Any = None

    def __init__(self, refusal: Exception | None = None) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self._refusal = refusal

    async def watch(self, token: bytes, seconds: float) -> LiveWatch:
        self.asked.append((token, seconds))
        if self._refusal:
            raise self._refusal
        return LiveWatch(node="lb1", token=token.hex(), seconds=seconds)

    async def report(self, token: bytes) -> LiveReport:
        self.asked.append((token,))
        return LiveReport(node="lb1", token=token.hex(), packet=PACKET)


APPLICATIONS = {"admin": server.application, "read-only": readonly.application}


def ask(
    door: str, node: Node, method: str, body: bytes | None = None, query: str = ""
) -> tuple[int, dict[str, Any]]:
    async def whole() -> tuple[int, dict[str, Any]]:
        application = APPLICATIONS[door](cast("Any", node))
        async with TestClient(TestServer(application)) as client:
            response = await client.request(method, f"/v1/trace/live{query}", data=body)
            return response.status, json.loads(await response.text())

    return asyncio.run(whole())


@pytest.mark.parametrize("door", APPLICATIONS)
def test_a_token_is_looked_for_and_reported(door: str) -> None:
    node = Node()
    body = json.dumps({"token": TOKEN, "seconds": 2.5}).encode()
    assert ask(door, node, "POST", body) == (
        200, {"node": "lb1", "token": TOKEN, "seconds": 2.5},
    )  # fmt: skip
    code, report = ask(door, node, "GET", query=f"?token={TOKEN}")
    assert (code, report["packet"]) == (200, PACKET.model_dump(mode="json"))
    assert node.asked == [(bytes.fromhex(TOKEN), 2.5), (bytes.fromhex(TOKEN),)]


@pytest.mark.parametrize("door", APPLICATIONS)
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({}, "token: Field required; seconds: Field required"),
        ({"token": TOKEN[1:], "seconds": 1}, "token: String should match pattern"),
        ({"token": TOKEN + "\n", "seconds": 1}, "token: String should match pattern"),
        ({"token": TOKEN.upper(), "seconds": 1}, "token: String should match pattern"),
        ({"token": TOKEN, "seconds": 0}, "seconds: Input should be greater than 0"),
        ({"token": TOKEN, "seconds": 5.1}, "seconds: Input should be less than or equal to 5"),
        ({"token": TOKEN, "seconds": 1, "x": 1}, "x: Extra inputs are not permitted"),
    ],
)
def test_a_watch_that_makes_no_sense_is_refused(
    door: str, body: dict[str, object], reason: str
) -> None:
    node = Node()
    code, answer = ask(door, node, "POST", json.dumps(body).encode())
    assert (code, node.asked) == (400, [])
    assert reason in answer["error"]


@pytest.mark.parametrize("query", ["", "?token=", "?token=xy", f"?token={TOKEN}&x=1"])
def test_a_report_of_no_token_is_refused(query: str) -> None:
    node = Node()
    code, _answer = ask("admin", node, "GET", query=query)
    assert (code, node.asked) == (400, [])


@pytest.mark.parametrize("refusal", [Refused("is under way"), TooSoon("less than 1 s ago")])
def test_a_refusal_has_its_status(refusal: Exception) -> None:
    body = json.dumps({"token": TOKEN, "seconds": 1}).encode()
    code = 429 if isinstance(refusal, TooSoon) else 409
    assert ask("read-only", Node(refusal), "POST", body) == (code, {"error": str(refusal)})


def test_a_body_is_bounded_on_the_network() -> None:
    node = Node()
    code, answer = ask("read-only", node, "POST", b" " * 1025)
    assert (code, node.asked) == (413, [])
    assert "Request Entity Too Large" in answer["error"]
