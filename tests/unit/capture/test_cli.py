"""What ``lbfwd capture`` takes and says; capturing itself is tests/topology/capture."""

import argparse

import pytest

from lbfwd import __version__
from lbfwd.capture.aim import Seen
from lbfwd.cli import capture
from lbfwd.config import WorkerSettings
from tests.unit.capture.site import status


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    capture.configure(parser)
    return parser.parse_args(arguments)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--count", "0"), "0: must be a number from 1 to"),
        (("--rate", "x"), "x: must be a number from 1 to 1000000"),
        (("--sample", "65537"), "65537: must be a number from 1 to 65536"),
        (("--snaplen", "159"), "159: must be a number from 160 to 262144"),
        (("--seconds", "0"), "'0': seconds, more than 0"),
        (("--seconds", "inf"), "'inf': seconds, more than 0"),
        (("--flow", "tcp", "::1"), "expected 3 arguments"),
        (("--before", "--after"), "not allowed with"),
    ],
)
def test_wrong_usage(
    arguments: tuple[str, ...], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        parsed(*arguments)
    assert error.value.code == 2
    assert text in capsys.readouterr().err


def test_the_rate_is_bounded_unless_told_otherwise() -> None:
    assert parsed().rate == 10_000


@pytest.mark.parametrize(
    ("bypass", "before", "warns"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_a_queue_that_is_bypassed_is_told(
    bypass: bool,
    before: bool,
    warns: bool,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = status()
    settings = WorkerSettings(qdisc_bypass=bypass)
    workers = tuple(worker.model_copy(update={"settings": settings}) for worker in node.workers)
    node = node.model_copy(update={"workers": workers})
    kept_off: list[list[int]] = []
    monkeypatch.setattr("lbfwd.capture.run.keep_off", kept_off.append)
    manners = capture._Manners(after=not before)
    for _look in range(2):  # the second time nothing is new
        manners.mind(Seen(node, frozenset()))
    said = capsys.readouterr().err
    assert said.count("qdisc_bypass is on for the workers on cpus 2, 3") == warns
    assert kept_off == [[2, 3]] * 2


def test_no_lbfwd_to_ask(capsys: pytest.CaptureFixture[str], tmp_path: object) -> None:
    assert capture.run(parsed("--runtime-dir", str(tmp_path), "--write", "x")) == 1
    assert "no lbfwd runs there" in capsys.readouterr().err


def test_an_lbfwd_of_another_version(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lbfwd.api.client.request", lambda *_question: b'{"version": "0.0.1"}')
    assert capture.run(parsed("--write", "x")) == 1
    assert f"no answer of an lbfwd {__version__}" in capsys.readouterr().err
