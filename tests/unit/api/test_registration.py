"""The registration endpoint over real HTTP: who gets in, and what is refused by name."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from structlog.testing import capture_logs

from lbfwd.api.registration import BURST, LARGEST_BODY, LOG_S, MOST_ADDRESSES, Meter, application
from lbfwd.fleet.registration import Registration, RegistrationError, View
from lbfwd.health.standing import BackendKey

TOKEN, OTHER = "0123456789abcdef", "fedcba9876543210"
AUTH = {"Authorization": f"Bearer {TOKEN}"}
PATH = "/v1/backends/web/a"
BODY = {"address": "10.0.0.11", "weight": 2, "state": "paused", "since": 1.5, "lease_s": 7}
VIEW = View(node="lb1", state="joining", reason="r", since=1.5)


class Enrolling:
    """Notes what it is told; ``refusal``: of everything."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.refusal = ""

    async def put(self, key: BackendKey, said: Registration, lease_s: int) -> View:
        if self.refusal:
            raise RegistrationError(self.refusal)
        self.told.append(("put", key, said, lease_s))
        return VIEW

    async def remove(self, key: BackendKey, address: str) -> None:
        self.told.append(("remove", key, address))

    async def view(self, key: BackendKey) -> View:
        self.told.append(("view", key))
        return VIEW

    async def tokens(self, pool: str) -> Sequence[str]:
        return (TOKEN, OTHER) if pool == "web" else ()


Work = Callable[[TestClient[Any, Any]], Awaitable[None]]


def serve(enrolling: Enrolling, work: Work, now: Callable[[], float] = lambda: 0.0) -> None:
    async def main() -> None:
        async with TestClient(TestServer(application(enrolling, now))) as client:
            await work(client)

    asyncio.run(main())


def test_a_registration_is_passed_on_and_answered() -> None:
    enrolling = Enrolling()

    async def work(client: TestClient[Any, Any]) -> None:
        async with client.put("/v1/backends/web/a%2Fb", json=BODY, headers=AUTH) as answer:
            assert (answer.status, View.model_validate(await answer.json())) == (200, VIEW)
        async with client.get(PATH, headers=AUTH) as answer:
            assert View.model_validate(await answer.json()) == VIEW
        other = {"Authorization": f"Bearer {OTHER}"}
        async with client.delete(f"{PATH}?address=10.0.0.11", headers=other) as answer:
            assert answer.status == 200

    serve(enrolling, work)
    said = Registration(address=ip_address("10.0.0.11"), weight=2, state="paused", since=1.5)
    assert enrolling.told == [
        ("put", ("web", "a/b"), said, 7),
        ("view", ("web", "a")),
        ("remove", ("web", "a"), "10.0.0.11"),
    ]


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        (PATH, {}),
        (PATH, {"Authorization": TOKEN}),
        (PATH, {"Authorization": "Bearer "}),
        (PATH, {"Authorization": "Bearer 0123456789abcdeF"}),
        (PATH, {"Authorization": f"Basic {TOKEN}"}),
        ("/v1/backends/other/a", {"Authorization": "Bearer "}),
        ("/v1/backends/other/a", AUTH),
    ],
)
def test_without_the_pools_token_nobody_gets_in(path: str, headers: dict[str, str]) -> None:
    enrolling = Enrolling()

    async def work(client: TestClient[Any, Any]) -> None:
        for method in ("PUT", "GET", "DELETE"):
            async with client.request(method, path, json=BODY, headers=headers) as answer:
                assert answer.status == 403
                error = (await answer.json())["error"]
                assert "the token is not that of its token_file" in error
                assert TOKEN not in error

    serve(enrolling, work)
    assert enrolling.told == []


@pytest.mark.parametrize(
    ("change", "status", "rule"),
    [
        ({"address": "fe80::1"}, 403, "address: a link-local address"),
        ({"weight": -1}, 403, "weight: a whole number from 0 to 65535"),
        ({"lease_s": 1}, 403, "lease_s: 2 to 300 seconds"),
        ({"lease_s": "x"}, 403, "lease_s: 2 to 300 seconds"),
        ({"name": "x" * LARGEST_BODY}, 413, "Request Entity Too Large"),
    ],
)
def test_a_bad_body_is_refused_by_its_rule(change: dict[str, Any], status: int, rule: str) -> None:
    async def work(client: TestClient[Any, Any]) -> None:
        async with client.put(PATH, data=json.dumps(BODY | change), headers=AUTH) as answer:
            assert answer.status == status
            assert rule in (await answer.json())["error"]

    enrolling = Enrolling()
    serve(enrolling, work)
    assert enrolling.told == []


def test_a_refusal_is_told() -> None:
    enrolling = Enrolling()
    enrolling.refusal = 'name "a": is that of another backend (10.0.0.12)'

    async def work(client: TestClient[Any, Any]) -> None:
        async with client.put(PATH, json=BODY, headers=AUTH) as answer:
            assert (answer.status, await answer.json()) == (403, {"error": enrolling.refusal})

    serve(enrolling, work)


def test_nothing_else_is_behind_it() -> None:
    async def work(client: TestClient[Any, Any]) -> None:
        for path in ("/", "/v1", "/v1/status", "/metrics", "/v1/backends", "/v1/backends/web"):
            async with client.get(path, headers=AUTH) as answer:
                assert answer.status == 404
        async with client.post(PATH, headers=AUTH) as answer:
            assert answer.status == 405

    serve(Enrolling(), work)


def test_an_address_may_ask_only_so_often() -> None:
    now = [0.0]

    async def status(client: TestClient[Any, Any]) -> int:
        async with client.get(PATH) as answer:  # who guesses tokens is counted, too
            return answer.status

    async def work(client: TestClient[Any, Any]) -> None:
        assert {await status(client) for _ in range(BURST)} == {403}
        assert await status(client) == 429
        now[0] += 0.1
        assert [await status(client) for _ in range(2)] == [403, 429]

    serve(Enrolling(), work, lambda: now[0])


def test_wrong_tokens_are_logged_but_not_more_often_than_anybody_reads() -> None:
    now = [0.0]

    async def work(client: TestClient[Any, Any]) -> None:
        for moment in (0.0, 1.0, 2.0, LOG_S + 0.5):
            now[0] = moment
            async with client.get(PATH, headers={"Authorization": "Bearer guess"}):
                pass
        async with client.get(PATH, headers=AUTH) as answer:
            assert answer.status == 200

    with capture_logs() as logs:
        serve(Enrolling(), work, lambda: now[0])
    line = {"event": "registration_unauthorized", "log_level": "warning"}
    who = {"address": "127.0.0.1", "pool": "web"}
    assert logs == [line | who | {"tries": 1}, line | who | {"tries": 3}]


def test_addresses_are_counted_apart_and_forgotten() -> None:
    meter = Meter()
    assert all(meter.admits("a", 0.0) for _ in range(BURST))
    assert not meter.admits("a", 0.0)
    assert meter.admits("b", 0.0)
    for number in range(MOST_ADDRESSES):
        meter.admits(str(number), 0.0)
    assert meter.admits("a", 0.0), "whoever has not asked for the longest time is new again"
