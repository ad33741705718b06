"""A join from beginning to end, over a registrar that is told what to answer."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from lbfwd.api.client import request as ask
from lbfwd.backend import agent, join
from lbfwd.backend.control import SOCKET, control
from lbfwd.backend.join import Joined, JoinRequest
from lbfwd.backend.registrar import Registrar as Told
from lbfwd.backend.request import BackendError
from lbfwd.config.fleet import EtcdSettings
from lbfwd.config.values import parse_address
from lbfwd.demo.lab import eventually
from tests.unit.backend.test_agent import ACTIVE, Registrar, paused

LONG_S = 30.0


def wanted(directory: Path) -> JoinRequest:
    return JoinRequest(
        pools=("web",), name="a", address=parse_address("10.0.0.11"), weight=1, lease_s=3,
        drain_s=0.05, runtime=directory, nodes=("https://lb1:9443",),
    )  # fmt: skip


def tell(directory: Path, verb: str, body: object = None) -> object:
    method = "GET" if verb == "status" else "POST"
    return json.loads(ask(directory / SOCKET, method, f"/v1/{verb}", body, LONG_S))


@pytest.fixture
def registrar(monkeypatch: pytest.MonkeyPatch) -> Registrar:
    """It has live flows for ever."""
    told = Registrar([ACTIVE], [paused(1)])

    @asynccontextmanager
    async def opened(_request: JoinRequest) -> AsyncIterator[Told]:
        yield told

    monkeypatch.setattr(join, "_registrar", opened)
    monkeypatch.setattr(agent, "DRAIN_POLL_S", 0.01)
    return told


def test_the_end_waits_for_no_longer_leave_and_nothing_stays_registered(
    tmp_path: Path, registrar: Registrar
) -> None:
    answers: list[object] = []
    with Joined(wanted(tmp_path), lambda: None):
        eventually(lambda: registrar.told, LONG_S, "it has registered")
        body = {"drain_s": 3600.0}
        leaving = threading.Thread(target=lambda: answers.append(tell(tmp_path, "leave", body)))
        leaving.start()
        eventually(lambda: "paused" in registrar.told, LONG_S, "it leaves")
    leaving.join(LONG_S)
    assert answers == [{"drained": False, "unheard": []}]
    assert (registrar.told[-1], registrar.told.count("withdrawn")) == ("withdrawn", 1)


def test_a_second_join_is_refused_and_the_first_can_still_be_asked(tmp_path: Path) -> None:
    async def main() -> None:
        one = agent.Agent(Registrar([ACTIVE]), {}, 3)
        async with control(one, one.leave, tmp_path):
            with pytest.raises(BackendError, match="another lbfwd backend join listens there"):
                async with control(one, one.leave, tmp_path):
                    pass
            await asyncio.to_thread(tell, tmp_path, "status")

    asyncio.run(main())
    assert not (tmp_path / SOCKET).exists()


def test_an_own_address_that_nodes_cannot_use_is_named(tmp_path: Path) -> None:
    etcd = EtcdSettings(endpoints=("http://127.0.0.1:2379",))
    here = replace(wanted(tmp_path), address=None, nodes=(), etcd=etcd)
    with (
        pytest.raises(BackendError, match=r"127\.0\.0\.1: a loopback address.*: say --address"),
        Joined(here, lambda: None),
    ):
        pass
