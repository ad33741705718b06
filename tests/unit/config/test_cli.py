"""``lbfwd`` and ``lbfwd check``: exit codes, streams, and how little is imported."""

import json
import os
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from lbfwd.cli import check, main
from lbfwd.config import WorkerSettings, warn
from lbfwd.config.hardware import Hardware
from lbfwd.config.machine import Machine
from tests.unit.config.samples import GOOD, change

LBFWD = [sys.executable, "-m", "lbfwd.cli.main"]


@pytest.fixture(autouse=True)
def made_up_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        check, "this_machine", lambda: Machine({"eth0": 1}, frozenset({0}), frozenset({0}))
    )
    monkeypatch.setattr(warn, "local_addresses", tuple)
    monkeypatch.setattr(warn, "this_hardware", lambda _names: Hardware())


@pytest.fixture
def config_file(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str) -> str:
        path = tmp_path / "lb.toml"
        path.write_text(text)
        return str(path)

    return write


Write = Callable[[str], str]
Captured = pytest.CaptureFixture[str]


def test_check_good(config_file: Write, capsys: Captured) -> None:
    path = config_file(GOOD)
    assert main.main(["check", path]) == 0
    out, err = capsys.readouterr()
    first, *table = out.splitlines()
    assert first == f"{path}: good: 1 service, 1 pool, 2 backends, 1 worker"
    assert [line.split() for line in table] == [
        ["slot", "cpu", *WorkerSettings.model_fields],
        ["0", "0", "v3", "64", "128", "1", "0", "4096", "false"],
    ]
    assert err == ""


def test_check_bad(config_file: Write, capsys: Captured) -> None:
    path = config_file(change("port = 80", "port = 0", change("eth0", "eth9")))
    assert main.main(["check", path]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        f'error: {path}: service "web".port = 0: a whole number from 1 to 65535',
        f'error: {path}: node.interfaces[0] = "eth9": no such interface; there are: eth0',
    ]


def test_check_warns_and_goes_on(config_file: Write, capsys: Captured) -> None:
    path = config_file(change("backends", "table_size = 3\nbackends"))
    assert main.main(["check", path]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{path}: good: ")
    assert err.startswith(f'warning: {path}: pool "web".table_size = 3: less than 100 slots')


def test_check_json(config_file: Write, capsys: Captured) -> None:
    path = config_file(change("port = 80", "port = 0"))
    assert main.main(["check", "--json", path]) == 1
    out, err = capsys.readouterr()
    assert err == ""
    assert json.loads(out) == {
        "ok": False,
        "errors": [
            {
                "file": path,
                "key": 'service "web".port',
                "value": "0",
                "rule": "a whole number from 1 to 65535",
            }
        ],
        "warnings": [],
        "summary": "",
        "workers": [],
    }
    assert main.main(["check", config_file(GOOD), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True


def test_check_shows_what_each_worker_has_in_force(config_file: Write, capsys: Captured) -> None:
    own = '[[worker]]\ncpu = 0\nring = "v2"\nqdisc_bypass = true\n[[pool]]'
    path = config_file(change("[[pool]]", own, change("[0]", "[0]\nbusy_poll_us = 5")))
    assert main.main(["check", "--json", path]) == 0
    assert json.loads(capsys.readouterr().out)["workers"] == [
        {
            "slot": 0,
            "cpu": 0,
            "ring": "v2",
            "rx_ring_mib": 64,
            "rx_block_kib": 128,
            "rx_retire_ms": 1,
            "busy_poll_us": 5,
            "tx_ring_frames": 4096,
            "qdisc_bypass": True,
        }
    ]
    assert main.main(["check", path]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.split() == ["0", "0", "v2", "64", "128", "1", "5", "4096", "true"]


def test_check_when_the_kernel_does_not_tell(
    config_file: Write, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> Machine:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(check, "this_machine", refuse)
    assert main.main(["check", config_file(GOOD)]) == 1
    assert "this machine: cannot be examined" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "required: VERB"),
        (["chekc"], "invalid choice: 'chekc'"),
        (["check"], "required: FILE"),
        (["check", "a", "b"], "unrecognized arguments: b"),
        (["--bogus"], "required: VERB"),
    ],
)
def test_wrong_usage(arguments: list[str], reason: str, capsys: Captured) -> None:
    with pytest.raises(SystemExit) as caught:
        main.main(arguments)
    assert caught.value.code == 2
    assert reason in capsys.readouterr().err


def test_version_and_help(capsys: Captured) -> None:
    from lbfwd import __version__

    for arguments, shown in (
        (["--version"], f"lbfwd {__version__}\n"),
        (["--help"], "check a configuration file"),
        (["check", "--help"], "usage: lbfwd check"),
    ):
        with pytest.raises(SystemExit) as caught:
            main.main(arguments)
        assert caught.value.code == 0
        assert shown in capsys.readouterr().out


def test_interrupted(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    def run(_arguments: object) -> int:
        raise KeyboardInterrupt

    verb = types.SimpleNamespace(HELP="", configure=lambda _parser: None, run=run)
    monkeypatch.setitem(sys.modules, "lbfwd.cli.check", verb)
    assert main.main(["check"]) == 1
    assert capsys.readouterr().err == "lbfwd: interrupted\n"


@pytest.mark.parametrize("arguments", [["check", "--json", "/absent"], ["check", "--help"]])
def test_a_reader_that_is_gone(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        [*LBFWD, *arguments],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        env=buffered,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_worker_that_imports_main_carries_no_libraries() -> None:
    code = "import lbfwd.cli.main, sys; print(*sys.modules)"
    names = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "argparse" in names
    heavy = {"pydantic", "pyroute2", "asyncio", "aiohttp", "rich", "structlog", "cffi", "json"}
    assert not heavy & set(names)
