"""What nodes of a fleet are asked, and how ``lbfwd status --fleet`` shows it."""

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from lbfwd.api import fleet
from lbfwd.api.respond import errors_as_json
from lbfwd.api.server import admin_socket
from lbfwd.cli.main import main
from lbfwd.config import ConfigError, Problem
from lbfwd.fleet.ask import ask_all
from lbfwd.supervisor.changes import Forecast
from lbfwd.supervisor.errors import Refused
from lbfwd.supervisor.summary import Summary
from tests.unit.fleet.etcd_server import free_port
from tests.unit.fleet.test_compare import answer

FORECAST = Forecast(
    file="candidate",
    changes=(),
    workers=(),
    restart=(),
    services=(),
    moved=0.0,
    breaking=0,
    assumed=(),
)


@dataclass
class Node:
    """``known``: the nodes that it knows; ``raises``: instead of a forecast."""

    name: str = "a"
    known: dict[str, str] = field(default_factory=dict)
    configuration: str = "d"
    raises: Exception | None = None
    changes: object = None

    async def summary(self) -> Summary:
        found = answer(self.name, self.configuration, web="1").found
        assert found
        return found.model_copy(update={"nodes": self.known})

    async def candidate(self, name: str) -> Forecast:
        assert name == "0aB"
        if self.raises:
            raise self.raises
        return FORECAST


def application(node: Node) -> web.Application:
    made = web.Application(middlewares=[errors_as_json])
    fleet.add_routes(made, node)
    return made


def ask(node: Node, path: str) -> tuple[int, Any]:
    async def whole() -> tuple[int, Any]:
        async with TestClient(TestServer(application(node))) as client:
            response = await client.get(path)
            return response.status, await response.json()

    return asyncio.run(whole())


def test_a_summary_is_what_nodes_compare() -> None:
    code, body = ask(Node(known={"b": "10.0.0.2:9108"}), "/v1/summary")
    assert code == 200
    assert (body["node"], body["nodes"]) == ("a", {"b": "10.0.0.2:9108"})
    assert Summary.model_validate(body | {"new in the next version": 1}).node == "a"


def test_a_candidate_is_planned() -> None:
    assert ask(Node(), "/v1/candidate?name=0aB") == (200, FORECAST.model_dump(mode="json"))


@pytest.mark.parametrize("query", ["", "?name=", "?name=a/b", "?name=a&x=1", f"?name={'a' * 65}"])
def test_only_a_plain_name_is_a_candidates(query: str) -> None:
    code, body = ask(Node(), f"/v1/candidate{query}")
    assert code == 400
    assert "name: one, up to 64 letters and digits" in body["error"]


def test_what_is_wrong_with_a_candidate_is_told() -> None:
    bad = ConfigError([Problem("candidate", "flows", "1", "a table")])
    code, body = ask(Node(raises=bad), "/v1/candidate?name=0aB")
    assert (code, body["problems"][0]["key"]) == (422, "flows")
    assert ask(Node(raises=Refused("none")), "/v1/candidate?name=0aB") == (409, {"error": "none"})


@contextmanager
def serving(*nodes: Node, directory: Path) -> Iterator[list[str]]:
    """The nodes on loopback, by a thread; the first at the admin socket, too. Gives where."""
    places: list[str] = []
    ready, end = Event(), Event()

    async def serve() -> None:
        async with admin_socket(cast("Any", nodes[0]), directory, ""):
            servers = [TestServer(application(node), host="127.0.0.1") for node in nodes]
            for server in servers:
                await server.start_server()
                places.append(f"127.0.0.1:{server.port}")
            ready.set()
            await asyncio.to_thread(end.wait, 30)
            for server in servers:
                await server.close()

    thread = Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(20)
        yield places
    finally:
        end.set()
        thread.join()


def rows(text: str) -> dict[str, list[str]]:
    """The table's rows by node; columns stand two spaces apart."""
    lines = [re.split(r" {2,}", line.strip()) for line in text.splitlines()]
    return {line[0]: line for line in lines if len(line) == 7 and line[0] != "node"}


def status(tmp_path: Path, *options: str) -> int:
    return main(["status", "--fleet", "--runtime-dir", str(tmp_path), *options])


def test_nodes_that_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nodes = Node("a"), Node("b")
    with serving(*nodes, directory=tmp_path) as (first, second):
        nodes[0].known = {"a": first, "b": second}
        assert status(tmp_path) == 0
        shown = capsys.readouterr().out
        assert status(tmp_path, "--json") == 0
    found = rows(shown)
    assert {name: row[1:3] for name, row in found.items()} == {"a": ["1", "1"], "b": ["1", "1"]}
    assert "2026-01-02 00:00:00Z" in shown
    assert json.loads(capsys.readouterr().out)["agree"] is True


def test_nodes_that_differ_or_are_away(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nodes = Node("a"), Node("b", configuration="other"), Node("c")
    with serving(*nodes, directory=tmp_path) as places:
        names = dict(zip("abc", places, strict=True))
        nodes[0].known = names | {"away": f"127.0.0.1:{free_port()}"}
        assert status(tmp_path) == 1
        shown = rows(capsys.readouterr().out)
        assert status(tmp_path, "--json") == 1
    assert [shown[name][-1] for name in names] == ["-", "configuration", "-"]
    assert shown["away"][-1] == f"{nodes[0].known['away']}: Connection refused"
    found = json.loads(capsys.readouterr().out)
    assert (found["agree"], found["nodes"][3]["summary"]) == (False, None)


def test_a_fleet_that_is_not_configured_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(Node(), directory=tmp_path):
        assert status(tmp_path) == 1
    assert "[fleet] nodes is empty on this node" in capsys.readouterr().err


def test_a_node_of_before_this_is_named() -> None:
    async def whole() -> tuple[str, ...]:
        async with TestServer(web.Application(), host="127.0.0.1") as server:
            there = {"old": f"127.0.0.1:{server.port}"}
            (found,) = await asyncio.to_thread(ask_all, there, "/v1/summary", Summary)
            return found.problems

    (problem,) = asyncio.run(whole())
    assert "answered with status 404" in problem
