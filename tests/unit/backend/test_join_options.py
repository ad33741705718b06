"""``lbfwd backend join``: every option that is wrong is named, and the old form still works."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from lbfwd.cli.main import main

ETCD = ("--etcd", "http://10.0.0.5:2379")
NODE = ("--node", "https://lb1:9443", "--token-file", "t")
URL = (
    'a URL such as "https://lb1:9443" or "https://[2001:db8::1]:9443", with a port and nothing'
    " behind it"
)


@pytest.fixture(autouse=True)
def _log_goes_on_elsewhere() -> Iterator[None]:
    """The command logs to a stderr that is closed with the test."""
    yield
    structlog.reset_defaults()


def complaints(capsys: pytest.CaptureFixture[str], *options: str) -> list[str]:
    assert main(["backend", "join", *options]) == 1
    lines = capsys.readouterr().err.splitlines()
    return [line.removeprefix("lbfwd backend: ") for line in lines]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (ETCD, "--pool: required"),
        (("--pool", "web"), "either --etcd or --node https://HOST:PORT"),
        (("--pool", "web", *ETCD, *NODE), "either --etcd or --node https://HOST:PORT"),
        (("--pool", "web", *NODE[:2]), "--token-file: required with --node https://…"),
        (("--pool", "web", *NODE, "--node", "http://lb2:9443"),
         f"--node http://lb2:9443: {URL}"),
        (("--pool", "web", *NODE, "--node", "https://2001:db8::1"),
         f"--node https://2001:db8::1: {URL}"),
        (("--pool", "web", *NODE, "--node", "https://lb2:65536"),
         f"--node https://lb2:65536: {URL}"),
        (("--pool", "web", *ETCD, "--lease", "1"), "--lease 1: 2 to 300 seconds"),
        (("--pool", "web", *ETCD, "--weight", "65536"), "--weight 65536: 0 to 65535"),
        (("--pool", "-", *ETCD), "--pool -: a name is 1 to 64 letters, digits or . _ : / [ ] - and"
         " begins with no -"),
        (("--pool", "web", *ETCD, "--address", "127.0.0.1"),
         "--address 127.0.0.1: a loopback address; a unicast address is needed"),
        (("--pool", "web", "--etcd", "10.0.0.5"),
         '--etcd: a URL such as "https://10.0.0.5:2379", with a port and nothing behind it'),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(
    capsys: pytest.CaptureFixture[str], options: tuple[str, ...], complaint: str
) -> None:
    assert complaints(capsys, *options) == [complaint]


def test_all_problems_come_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(complaints(capsys, "--weight", "-1", "--lease", "0")) == 4


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--vip", "192.0.2.10"],
        ["join", "--vip", "192.0.2.10", *NODE],
        ["bye"],
        ["--vip", "0.0.0.0", "--node", "203.0.113.10", *NODE[:2]],
        ["--vip", "0.0.0.0", "--node", "203.0.113.10", "--pool", "web"],
        ["--vip", "0.0.0.0", "--node", "203.0.113.10", *ETCD],
    ],
)
def test_wrong_usage_is_no_failure(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["backend", *arguments])
    assert caught.value.code == 2


@pytest.mark.parametrize("action", ["pause", "resume", "status", "leave"])
def test_without_a_join_the_others_say_where_they_looked(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, action: str
) -> None:
    assert main(["backend", action, "--runtime-dir", str(tmp_path)]) == 1
    assert f"{tmp_path}/backend.sock: no lbfwd runs there" in capsys.readouterr().err


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o602])
def test_a_token_that_others_can_read_is_refused_by_its_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, mode: int
) -> None:
    file = tmp_path / "token"
    file.write_text("0123456789abcdef")
    file.chmod(mode)
    node = ("--node", "https://127.0.0.1:1", "--token-file", str(file))
    rule = f"group and others must have no access (mode {mode:04o}): chmod 0600"
    options = ("--pool", "web", *node, "--address", "10.0.0.1", "--runtime-dir", str(tmp_path))
    assert complaints(capsys, *options) == [f"--token-file {file}: {rule}"]
