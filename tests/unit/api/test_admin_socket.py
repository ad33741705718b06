"""The admin socket: real server, real UNIX socket, a stand-in for the node."""

import asyncio
import json
import socket
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from lbfwd import __version__
from lbfwd.api.client import ApiError, request
from lbfwd.api.control import Control
from lbfwd.api.server import admin_socket
from lbfwd.cli import reload as reload_verb
from lbfwd.cli import status as status_verb
from lbfwd.cli.main import main
from lbfwd.config import ConfigError, Problem
from lbfwd.supervisor.changes import Reloaded, Terms
from lbfwd.supervisor.errors import SupervisorError
from lbfwd.supervisor.plan import Change, NeedsRestart
from lbfwd.supervisor.status import Status
from tests.unit.api.values import status

PROBLEMS = (Problem("f.toml", "node.name", '"-"', "a rule"), Problem("f.toml", "x", "1", "another"))
STATUS = status()
CHANGE = Change('pool "web".table_size', "251", "257")


@dataclass
class Node:
    """Answers, or raises, as the test says."""

    failure: Exception | None = None
    reloads: int = field(default=0)

    async def status(self) -> Status:
        if self.failure:
            raise self.failure
        return STATUS

    @property
    def changes(self) -> "Node":
        return self

    async def reload(self, _terms: Terms, _who: str) -> Reloaded:
        if self.failure:
            raise self.failure
        self.reloads += 1
        return Reloaded(generation=7, changes=(CHANGE,))


def raw(path: Path, head: str) -> tuple[int, str, Any]:
    """Status code, content type and JSON body of an answer, read without our client."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(20)
        sock.connect(str(path))
        sock.sendall(f"{head} HTTP/1.1\r\nHost: lbfwd\r\nConnection: close\r\n\r\n".encode())
        data = b"".join(iter(lambda: sock.recv(65536), b""))
    headers, _, body = data.partition(b"\r\n\r\n")
    lines = headers.decode().split("\r\n")
    kind = next(line for line in lines if line.lower().startswith("content-type:"))
    return int(lines[0].split()[1]), kind.partition(":")[2].strip(), json.loads(body)


def test_status_is_the_whole_status(ask: Callable[..., Any], tmp_path: Path) -> None:
    code, kind, body = ask(Node(), raw, tmp_path / "admin.sock", "GET /v1/status")
    assert code == 200
    assert kind.startswith("application/json")
    assert body["generation"] == 42
    assert body["drops"] == {"not_ip": 0, "fragment": 17}
    assert body["pools"][0]["backends"][1]["reason"] == "no route"
    assert body["services"][0]["vip"] == "2001:db8::10"


def test_reload_tells_what_changed(ask: Callable[..., Any], tmp_path: Path) -> None:
    node = Node()
    code, _, body = ask(node, raw, tmp_path / "admin.sock", "POST /v1/reload")
    assert (code, node.reloads) == (200, 1)
    change = {"key": 'pool "web".table_size', "old": "251", "new": "257"}
    assert body == {"generation": 7, "changes": [change], "not_kept": ""}


@pytest.mark.parametrize(
    ("failure", "code"),
    [(ConfigError(PROBLEMS), 422), (NeedsRestart(PROBLEMS), 409)],
)
def test_a_refused_reload_tells_every_problem(
    ask: Callable[..., Any], tmp_path: Path, failure: Exception, code: int
) -> None:
    got, _, body = ask(Node(failure), raw, tmp_path / "admin.sock", "POST /v1/reload")
    assert got == code
    assert [problem["key"] for problem in body["problems"]] == ["node.name", "x"]
    with pytest.raises(ApiError) as refusal:
        ask(Node(failure), request, tmp_path / "admin.sock", "POST", "/v1/reload")
    assert refusal.value.problems == ('f.toml: node.name = "-": a rule', "f.toml: x = 1: another")


@pytest.mark.parametrize(
    ("head", "code"),
    [
        ("GET /nowhere", 404),
        ("GET /", 404),
        ("DELETE /v1/status", 405),
        ("GET /v1/reload", 405),
    ],
)
def test_unknown_requests_are_answered_in_json(
    ask: Callable[..., Any], tmp_path: Path, head: str, code: int
) -> None:
    got, kind, body = ask(Node(), raw, tmp_path / "admin.sock", head)
    assert got == code
    assert kind.startswith("application/json")
    assert head in body["error"]


@pytest.mark.parametrize("failure", [SupervisorError("no memory"), RuntimeError("no memory")])
def test_what_fails_is_told(ask: Callable[..., Any], tmp_path: Path, failure: Exception) -> None:
    code, _, body = ask(Node(failure), raw, tmp_path / "admin.sock", "POST /v1/reload")
    assert code == 500
    assert "no memory" in body["error"]


def test_only_its_owner_may_use_the_socket(ask: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    mode = ask(Node(), lambda: path.stat().st_mode)
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600
    assert not path.exists()


def test_a_socket_left_by_a_dead_one_is_replaced(ask: Callable[..., Any], tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "admin.sock"))
    assert ask(Node(), request, tmp_path / "admin.sock", "GET", "/v1/status")


def test_a_path_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / ("x" * 100)
    directory.mkdir()

    async def serve() -> None:
        async with admin_socket(cast("Control", Node()), directory, ""):
            pass

    with pytest.raises(SupervisorError, match=r"admin\.sock: AF_UNIX path too long"):
        asyncio.run(serve())


@pytest.mark.parametrize("verb", ["status", "reload"])
def test_where_no_lbfwd_runs_the_verbs_say_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    assert main([verb, "--runtime-dir", str(tmp_path)]) == 1
    assert capsys.readouterr().err == (
        f"{tmp_path}/admin.sock: no lbfwd runs there (see lbfwd run --runtime-dir)\n"
    )


@pytest.mark.parametrize(
    ("directory", "reason"),
    [("file", "Not a directory"), ("x" * 120, "AF_UNIX path too long")],
    ids=["file", "long"],
)
def test_a_place_where_no_socket_can_be_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], directory: str, reason: str
) -> None:
    (tmp_path / "file").touch()
    where = tmp_path / directory
    assert main(["status", "--runtime-dir", str(where)]) == 1
    assert capsys.readouterr().err == f"{where}/admin.sock: {reason}\n"


def test_the_status_verb_prints_json(
    ask: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(Node(), main, ["status", "--json", "--runtime-dir", str(tmp_path)]) == 0
    assert Status.model_validate_json(capsys.readouterr().out) == STATUS


@pytest.mark.parametrize(
    "verb",
    [["status"], ["plan", __file__], ["drain", "a"], ["top", "--once"]],
    ids=["status", "plan", "drain", "top"],
)
def test_an_lbfwd_of_another_version_is_named(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    verb: list[str],
) -> None:
    """After an update, before the restart: the node answers what the command does not know."""
    answer = b'{"version": "0.0.1", "new": 1}'
    monkeypatch.setattr("lbfwd.api.client.request", lambda *_question: answer)
    assert main([*verb, "--runtime-dir", str(tmp_path)]) == 1
    reason = f"{tmp_path}/admin.sock: no answer of an lbfwd {__version__}"
    assert capsys.readouterr().err.startswith(reason)


def test_the_status_verb_prints_tables_without_colours(
    ask: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(Node(), main, ["status", "--runtime-dir", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "generation 42" in out


def test_the_reload_verb_prints_changes(
    ask: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(Node(), main, ["reload", "--runtime-dir", str(tmp_path)]) == 0
    assert 'pool "web".table_size: 251 -> 257' in capsys.readouterr().out


def test_the_reload_verb_tells_that_a_full_disk_keeps_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    reload_verb.show(b'{"generation": 7, "changes": [], "not_kept": "/f: No space left"}')
    assert capsys.readouterr().err == "not kept on disk: /f: No space left\n"


def test_the_reload_verb_prints_problems(
    ask: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    node = Node(ConfigError(PROBLEMS))
    assert ask(node, main, ["reload", "--runtime-dir", str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert err == 'f.toml: node.name = "-": a rule\nf.toml: x = 1: another\n'


def test_verbs_have_help() -> None:
    assert status_verb.HELP
    assert reload_verb.HELP
