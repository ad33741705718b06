"""The agent over a registrar that is told what to answer."""

import asyncio
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

import pytest

from lbfwd.backend import agent as module
from lbfwd.backend.agent import Agent
from lbfwd.backend.registrar import LostError, Said, Views
from lbfwd.fleet.registration import Registration, RegistrationError, View

KEY = ("web", "a")
SAID = {KEY: Registration(address=ip_address("10.0.0.11"), since=1.0)}
ACTIVE = View(node="lb1", state="active")


def paused(flows: int | None, node: str = "lb1") -> View:
    return View(node=node, state="paused", flows=flows)


class Registrar:
    """``answers``: one after another, the last one for ever."""

    def __init__(self, *answers: Sequence[View] | Exception) -> None:
        self.answers = list(answers)
        self.told: list[str] = []

    async def announce(self, said: Said) -> Views:
        self.told.append(said[KEY].state)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return {KEY: answer}

    async def withdraw(self, said: Said) -> None:
        assert said.keys() == {KEY}
        self.told.append("withdrawn")


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DRAIN_POLL_S", 0.001)


def agent(registrar: Registrar, lease_s: int = 3) -> Agent:
    return Agent(registrar, SAID, lease_s)


def test_refused_at_first_it_takes_everything_back_and_ends() -> None:
    registrar = Registrar(RegistrationError("https://lb2:9443: no"))
    with pytest.raises(RegistrationError, match="lb2:9443: no"):
        asyncio.run(agent(registrar).run())
    assert registrar.told == ["active", "withdrawn"]


def test_once_accepted_it_outlives_refusals_and_lost_nodes() -> None:
    registrar = Registrar([ACTIVE], LostError("etcd: away"), RegistrationError("no"), [ACTIVE])

    async def main() -> list[str]:
        one, problems = agent(registrar, 0), []
        running = asyncio.create_task(one.run())
        while len(registrar.told) < 6:
            await asyncio.sleep(0)
            problems.append(one.report().problem)
        running.cancel()
        return list(dict.fromkeys(problems))

    assert asyncio.run(main()) == ["", "etcd: away", "no"]
    assert "withdrawn" not in registrar.told


def test_pausing_is_told_at_once() -> None:
    registrar = Registrar([ACTIVE], [paused(3)], [ACTIVE])

    async def main() -> tuple[Any, Any]:
        one = agent(registrar)
        await one.resume()
        return await one.pause(), await one.resume()

    first, second = asyncio.run(main())
    assert (first.pools[0].state, first.pools[0].nodes[0].flows) == ("paused", 3)
    assert second.pools[0].state == "active"


def test_pausing_says_when_nobody_hears_it() -> None:
    one = agent(Registrar(LostError("away")))
    with pytest.raises(LostError, match="away"):
        asyncio.run(one.pause())
    assert one.report().pools[0].state == "paused", "it is told with the next sign of life"


@pytest.mark.parametrize(
    ("answers", "looks"),
    [
        ([[ACTIVE], [paused(2)], [paused(0)]], 4),
        ([[paused(None)], [paused(0)]], 3),
        ([[paused(0), paused(1, "lb2")], [paused(0), paused(0, "lb2")]], 3),
        ([[paused(0), ACTIVE], [paused(0)]], 3),
        ([[View(node="lb1", state="joining")]], 2),
        ([[paused(0)], [paused(1)], [paused(0)]], 4),
    ],
)
def test_leaving_waits_until_every_node_has_said_twice_that_it_has_no_flow(
    answers: list[Sequence[View]], looks: int
) -> None:
    registrar = Registrar(*answers)
    assert asyncio.run(agent(registrar).leave(60.0)).drained
    assert registrar.told == ["paused"] * looks + ["withdrawn"]


UNKNOWN = View(node="lb2", state="unknown", reason="no answer in time")


def test_leaving_names_who_cannot_be_asked_and_does_not_wait_for_it() -> None:
    registrar = Registrar([paused(0), UNKNOWN])
    ending = asyncio.run(agent(registrar).leave(3600.0))
    assert (ending.drained, ending.unheard) == (True, ("lb2",))


REFUSED = View(node="lb2", state="refused", reason="outside")


def test_pausing_is_told_where_only_one_node_refuses() -> None:
    registrar = Registrar([ACTIVE], [paused(0), REFUSED])

    async def main() -> Any:
        one = agent(registrar)
        await one.resume()
        return await one.pause()

    report = asyncio.run(main())
    assert report.problem == "lb2: outside"
    assert [node.state for node in report.pools[0].nodes] == ["paused", "refused"]


def test_refused_by_one_node_at_first_it_takes_everything_back() -> None:
    registrar = Registrar([ACTIVE, REFUSED])
    with pytest.raises(RegistrationError, match="lb2: outside"):
        asyncio.run(agent(registrar).run())
    assert registrar.told == ["active", "withdrawn"]


def test_leaving_waits_its_time_for_a_node_that_refuses_by_now() -> None:
    """It may have live flows of ours until our lease there has ended."""
    registrar = Registrar([ACTIVE], [paused(0), REFUSED])
    assert not asyncio.run(agent(registrar).leave(0.02)).drained
    assert registrar.told[-1] == "withdrawn"


@pytest.mark.parametrize("answer", [[ACTIVE], [paused(1)], [], [UNKNOWN], LostError("away")])
def test_leaving_ends_with_its_time(answer: Any) -> None:
    registrar = Registrar(answer)
    assert not asyncio.run(agent(registrar).leave(0.02)).drained
    assert registrar.told[-1] == "withdrawn"


def test_without_a_drain_time_it_leaves_at_once_and_never_registers_again() -> None:
    registrar = Registrar([ACTIVE])

    async def main() -> None:
        one = agent(registrar, 0)
        running = asyncio.create_task(one.run())
        while not registrar.told:  # noqa: ASYNC110 - the agent makes it true
            await asyncio.sleep(0)
        await one.leave(0.0)
        told = list(registrar.told)
        for _turn in range(100):  # of the loop; with no lease it beats in each
            await asyncio.sleep(0)
        assert not running.done()
        running.cancel()
        assert registrar.told == told

    asyncio.run(main())
    assert registrar.told[-1] == "withdrawn"
