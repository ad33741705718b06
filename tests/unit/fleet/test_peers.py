"""Whether another node takes fragments: what counts against it, and how often it must."""

import asyncio
from collections.abc import Callable, Sequence

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from lbfwd.fleet import peers
from lbfwd.fleet.peers import Objection, Readiness, Sight, ask, objection, step

OWN = Readiness(node="lb1", ready=True, reason="", configuration="c", roster="r")
GOOD = OWN.model_copy(update={"node": "lb2"})
MISS, SAID = Objection("no answer", decisive=False), Objection("stops", decisive=True)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"node": "lb3"}, "calls itself lb3"),
        ({"ready": False, "reason": "it starts"}, "not ready: it starts"),
        ({"configuration": "x"}, "has another configuration (lbfwd status --fleet)"),
        ({"roster": "x"}, "has other [fleet] nodes or fragments"),
    ],
)
def test_what_a_node_says(change: dict[str, object], reason: str | None) -> None:
    found = objection("lb2", OWN, GOOD.model_copy(update=change))
    assert found == (None if reason is None else Objection(reason, decisive=True))


def test_a_node_that_says_nothing() -> None:
    assert objection("lb2", OWN, "refused") == Objection("refused", decisive=False)


def course(found: Sequence[Objection | None], live: bool = False) -> list[bool]:
    sight, seen = Sight(live, 0.0), []
    for now, answer in enumerate(found, 1):
        sight = step(sight, answer, float(now))
        seen.append(sight.live)
        assert sight.since <= now
    return seen


@pytest.mark.parametrize(
    ("live", "found", "seen"),
    [
        (False, [None, None], [False, True]),
        (False, [None, MISS, None, None], [False, False, False, True]),
        (True, [MISS, MISS, MISS], [True, True, False]),
        (True, [MISS, MISS, None, MISS, MISS], [True] * 5),
        (True, [SAID, None, None], [False, False, True]),
        (True, [MISS, MISS, MISS, None, None], [True, True, False, False, True]),
    ],
)
def test_two_answers_bring_it_in_and_three_misses_out(
    live: bool, found: Sequence[Objection | None], seen: list[bool]
) -> None:
    assert course(found, live) == seen


def test_the_reason_and_its_time_are_kept() -> None:
    sight = Sight(True, 1.0)
    for now in (2.0, 3.0):
        sight = step(sight, MISS, now)
        assert (sight.since, sight.reason) == (1.0, "no answer")
    sight = step(sight, MISS, 4.0)
    assert sight == Sight(False, 4.0, "no answer")
    sight = step(sight, None, 5.0)
    assert (sight.live, sight.reason) == (False, "no answer")
    assert step(sight, None, 6.0) == Sight(True, 6.0)


async def asked(answer: Callable[[web.Request], object]) -> Readiness | str:
    application = web.Application()
    application.router.add_get(peers.RESOURCE, answer)  # type: ignore[arg-type]
    async with TestServer(application) as server, aiohttp.ClientSession() as session:
        return await ask(session, f"127.0.0.1:{server.port}")


@pytest.mark.parametrize("status", [200, 503])
def test_an_answer(status: int) -> None:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(text=GOOD.model_dump_json(), status=status)

    assert asyncio.run(asked(answer)) == GOOD


def test_a_newer_node_may_say_more() -> None:
    async def answer(_request: web.Request) -> web.Response:
        return web.json_response(GOOD.model_dump() | {"mood": "good"})

    assert asyncio.run(asked(answer)) == GOOD


@pytest.mark.parametrize("text", ["", "{}", "<html>", "x" * 100_000])
def test_nonsense(text: str) -> None:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(text=text)

    assert "not understood" in str(asyncio.run(asked(answer)))


def test_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "ANSWER_S", 0.1)

    async def answer(_request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    assert "no answer within 0.1 s" in str(asyncio.run(asked(answer)))


def test_nobody_there() -> None:
    async def ask_nobody() -> Readiness | str:
        async with aiohttp.ClientSession() as session:
            return await ask(session, "127.0.0.1:1")

    assert "127.0.0.1:1" in str(asyncio.run(ask_nobody()))
