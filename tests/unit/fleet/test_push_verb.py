"""``lbfwd push``: what it writes, and its exit code, over nodes and an etcd made by hand."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lbfwd.cli.main import main
from lbfwd.fleet import push as module
from lbfwd.fleet.ask import Answer
from lbfwd.fleet.push import Looked, Outcome
from lbfwd.supervisor.changes import Forecast
from lbfwd.supervisor.plan import Change
from tests.unit.config.test_shared import OWN
from tests.unit.fleet.test_push import ETCD, FLEET

RUNS = Outcome("lb1", "", 4, "d")


def plan(*restart: Change) -> Forecast:
    return Forecast(
        file="candidate",
        changes=restart,
        workers=(),
        restart=restart,
        services=(),
        moved=0.0,
        breaking=0,
        assumed=(),
    )


@dataclass
class Fleet:
    """Stands for ``Push``: what it finds, and what was asked of it."""

    plans: Sequence[Answer[Forecast]] = (Answer("lb1", plan()),)
    outcomes: Sequence[Outcome] = (RUNS,)
    written: list[int] = field(default_factory=list)
    waited: list[tuple[int, float]] = field(default_factory=list)

    def look(self) -> Looked:
        return Looked("", 17, self.plans)

    def write(self, revision: int) -> int:
        self.written.append(revision)
        return 18

    def wait(self, revision: int, timeout_s: float) -> Iterator[Outcome]:
        self.waited.append((revision, timeout_s))
        yield from self.outcomes


def push(fleet: Fleet, directory: Path, patch: pytest.MonkeyPatch, *options: str) -> int:
    patch.setattr(module, "Push", lambda *_: fleet)
    own, shared = directory / "lbfwd.toml", directory / "shared.toml"
    own.write_text(OWN + ETCD + FLEET)
    shared.write_text("")
    return main(["push", str(shared), "-c", str(own), "--timeout", "3", *options])


def nobody_there(_prompt: str) -> str:
    raise EOFError


def test_without_anybody_to_ask_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet = Fleet()
    monkeypatch.setattr("builtins.input", nobody_there)
    assert push(fleet, tmp_path, monkeypatch) == 1
    assert fleet.written == []
    assert "nothing was written: nobody is there to answer; see --yes" in capsys.readouterr().err


def test_a_node_that_would_need_a_restart_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its own file has changed meanwhile: a reload would be refused, whatever etcd says."""
    restart = plan(Change("workers.flows", "1024", "2048"))
    fleet = Fleet((Answer("lb1", plan()), Answer("lb2", restart)))
    assert push(fleet, tmp_path, monkeypatch, "--yes") == 1
    assert fleet.written == []
    shown = capsys.readouterr().err
    assert "lb2: needs a restart of lbfwd first: workers.flows: 1024 -> 2048" in shown
    assert "nothing was written: 1 of 2 nodes refuse it or did not answer; see --partial" in shown
    assert push(fleet, tmp_path, monkeypatch, "--yes", "--partial") == 0
    assert fleet.written == [17]


@pytest.mark.parametrize(
    ("outcome", "code"), [(RUNS, 0), (Outcome("lb1", "at revision 16, not this one, after 3 s"), 1)]
)
def test_what_etcd_holds_already_is_waited_for(
    outcome: Outcome,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fleet = Fleet((), (outcome,))
    assert push(fleet, tmp_path, monkeypatch, "--yes", "--json") == code
    assert (fleet.written, fleet.waited) == ([], [(17, 3.0)])
    shown: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert shown["revision"] == 17
    assert [node["problem"] for node in shown["nodes"]] == [outcome.problem]
    assert push(fleet, tmp_path, monkeypatch, "--dry-run") == 0
    assert len(fleet.waited) == 1
