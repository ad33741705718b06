"""Requests that change the node: real server, real UNIX socket, the real CLI, a stand-in node."""

import json
import os
import pwd
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lbfwd.api.client import ApiError, request
from lbfwd.cli.main import main
from lbfwd.config.load import MAX_FILE_BYTES
from lbfwd.supervisor.changes import BackendReport, Forecast, Reloaded, Terms
from lbfwd.supervisor.errors import Refused
from lbfwd.supervisor.forecast import Reweighted, ServiceForecast
from lbfwd.supervisor.plan import Change
from tests.unit.supervisor.build import TEXT

ME = pwd.getpwuid(os.geteuid()).pw_name
RING = Change("workers.ring", "v3", "v2")
FLOWS = Change("workers.flows", "1024", "2048")
FORECAST = Forecast(
    file="/f.toml",
    changes=(RING, FLOWS),
    workers=(RING,),
    restart=(FLOWS,),
    services=(
        ServiceForecast(
            name="http", pool="web", fate="changed", added=tuple("abcdefg"), removed=("x",),
            reweighted=(Reweighted(backend="y", old=1, new=7),), moved=0.25, buckets=63,
            flows=100, closing=3, breaking=10,
        ),
    ),
    moved=0.25,
    breaking=10,
    assumed=("web/a",),
)  # fmt: skip


@dataclass
class Node:
    """Writes down what it is asked, with the user who asked."""

    failure: Exception | None = None
    left: int = 2
    changed: tuple[Change, ...] = (RING,)
    asked: list[tuple[Any, ...]] = field(default_factory=list)

    @property
    def changes(self) -> "Node":
        return self

    def _note(self, *what: Any) -> None:
        self.asked.append(what)
        if self.failure:
            raise self.failure

    async def plan(self, text: str, file: str) -> Forecast:
        self._note("plan", text, file)
        return FORECAST

    async def reload(self, terms: Terms, who: str) -> Reloaded:
        self._note("reload", terms, who)
        return Reloaded(7, self.changed)

    async def confirm(self, who: str) -> None:
        self._note("confirm", who)

    async def undo(self, who: str) -> Reloaded:
        self._note("undo", who)
        return Reloaded(8, (RING,))

    async def operate(self, mode: str, name: str, pool: str | None, who: str) -> BackendReport:
        self._note("operate", mode, name, pool, who)
        return self._report(mode, who)

    async def end_operation(
        self, mode: str, name: str, pool: str | None, who: str
    ) -> BackendReport:
        self._note("end", mode, name, pool, who)
        return self._report("", "")

    async def backend(self, name: str, pool: str | None) -> BackendReport:
        self._note("backend", name, pool)
        self.left -= 1
        return self._report("drained", ME)

    def _report(self, mode: str, who: str) -> BackendReport:
        return BackendReport(
            pool="web", backend="a", mode=mode, who=who, flows=self.left, closing=0,
            warning="no backend of pool web takes new flows",
        )  # fmt: skip


Ask = Callable[..., Any]


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (["reload"], ("reload", Terms(), ME)),
        (["reload", "--max-moved", "5%"], ("reload", Terms(0.05), ME)),
        (["reload", "--confirm", "60"], ("reload", Terms(None, 60.0), ME)),
        (["confirm"], ("confirm", ME)),
        (["undo"], ("undo", ME)),
        (["drain", "a"], ("operate", "drained", "a", None, ME)),
        (["drain", "a", "--pool", "web"], ("operate", "drained", "a", "web", ME)),
        (["undrain", "a"], ("end", "drained", "a", None, ME)),
        (["disable", "a"], ("operate", "disabled", "a", None, ME)),
        (["enable", "a"], ("end", "disabled", "a", None, ME)),
    ],
)
def test_a_verb_asks_for_what_it_says_and_who_asks_is_known(
    ask: Ask, tmp_path: Path, arguments: list[str], asked: tuple[Any, ...]
) -> None:
    node = Node()
    assert ask(node, main, [*arguments, "--runtime-dir", str(tmp_path)]) == 0
    assert node.asked == [asked]


def test_plan_sends_the_text_of_the_file(
    ask: Ask, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "other.toml"
    file.write_text(TEXT)
    node = Node()
    assert ask(node, main, ["plan", str(file), "--runtime-dir", str(tmp_path)]) == 0
    assert node.asked == [("plan", TEXT, str(file))]
    assert (
        capsys.readouterr().out
        == """\
/f.toml: 2 changes
  workers.ring: v3 -> v2
  workers.flows: 1024 -> 2048
service http (pool web): changed
  added: a, b, c, d, e and 2 more
  removed: x
  reweighted: y 1 -> 7
  buckets that move: 25.00% (63)
  live flows that break: 10 of 100 (3 of them closing)
taken to be well, for nobody has asked them yet: web/a
workers or rings are replaced one after another, without a packet lost, for:
  workers.ring
refused by a reload, for these need a restart of lbfwd:
  workers.flows: 1024 -> 2048
"""
    )


def test_a_file_as_large_as_a_reload_reads_can_be_planned(ask: Ask, tmp_path: Path) -> None:
    text = '"\n' * (MAX_FILE_BYTES // 2)  # each of them is two characters in JSON
    node = Node()
    body = {"text": text, "file": "/f"}
    ask(node, request, tmp_path / "admin.sock", "POST", "/v1/plan", body)
    assert node.asked == [("plan", text, "/f")]


def test_plan_in_json_is_the_forecast(
    ask: Ask, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "other.toml"
    file.write_text(TEXT)
    assert ask(Node(), main, ["plan", str(file), "--json", "--runtime-dir", str(tmp_path)]) == 0
    assert Forecast.model_validate_json(capsys.readouterr().out) == FORECAST


def test_a_file_that_cannot_be_read_is_not_planned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", str(tmp_path / "none"), "--runtime-dir", str(tmp_path)]) == 1
    assert "cannot be read: No such file" in capsys.readouterr().err


def test_drain_waits_until_no_flow_is_left(
    ask: Ask, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lbfwd.cli.drain.LOOK_S", 0.0)
    node = Node(left=3)
    arguments = ["drain", "a", "--pool", "web", "--wait", "--runtime-dir", str(tmp_path)]
    assert ask(node, main, arguments) == 0
    assert node.asked[1:] == [("backend", "a", "web")] * 3
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "2 live flows", "1 live flow", "0 live flows",
    ]  # fmt: skip


def test_drain_gives_up_waiting_when_told_so(
    ask: Ask, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["drain", "a", "--wait", "--timeout", "0", "--runtime-dir", str(tmp_path)]
    assert ask(Node(left=9), main, arguments) == 1
    assert capsys.readouterr().err == "after 0 s: 8 live flows\n"


@pytest.mark.parametrize(
    ("resource", "body", "reason"),
    [
        ("/v1/reload", {"max_moved": 5}, "max_moved: "),
        ("/v1/reload", {"confirm_s": 0}, "confirm_s: "),
        ("/v1/reload", {"confirm": 60}, "confirm: Extra inputs"),
        ("/v1/reload", [], "body: "),
        ("/v1/plan", {"file": "/f"}, "text: Field required"),
        ("/v1/drain", {}, "backend: Field required"),
    ],
)
def test_rubbish_is_refused_by_name(
    ask: Ask, tmp_path: Path, resource: str, body: object, reason: str
) -> None:
    node = Node()
    with pytest.raises(ApiError) as refusal:
        ask(node, request, tmp_path / "admin.sock", "POST", resource, body)
    assert refusal.value.problems[0].startswith(f"POST {resource}: {reason}")
    assert node.asked == []


def test_what_cannot_be_done_now_is_a_conflict(
    ask: Ask, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    node = Node(Refused("nothing to undo"))
    assert ask(node, main, ["undo", "--runtime-dir", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "nothing to undo\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["reload", "--max-moved", "101%"],
        ["reload", "--max-moved", "x"],
        ["reload", "--confirm", "0"],
        ["drain", "a", "--wait", "--timeout", "nan"],
        ["drain", "a", "--wait", "--timeout", "-1"],
        ["top", "--interval", "0.1"],
    ],
)
def test_options_that_make_no_sense_are_wrong_usage(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert f"{arguments[-1]!r}: " in capsys.readouterr().err


@pytest.mark.parametrize("changes", [(RING,), ()])
def test_only_a_reload_that_changes_something_waits_to_be_confirmed(
    ask: Ask, tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: tuple[Change, ...]
) -> None:
    arguments = ["reload", "--confirm", "60", "--runtime-dir", str(tmp_path)]
    assert ask(Node(changed=changes), main, arguments) == 0
    assert ("goes back in 60 s" in capsys.readouterr().out) is bool(changes)


def test_an_answer_is_json(ask: Ask, tmp_path: Path) -> None:
    answer = ask(Node(), request, tmp_path / "admin.sock", "GET", "/v1/backend?backend=a")
    assert json.loads(answer)["mode"] == "drained"
