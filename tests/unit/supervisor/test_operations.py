"""What operators said of backends: saved as a whole or not at all, found by clear names."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lbfwd.config import Config
from lbfwd.supervisor.errors import Refused, SupervisorError
from lbfwd.supervisor.operations import Operation, Operations, find_backend
from tests.unit.supervisor.build import config

DRAINED = Operation("drained", "anna", 1_800_000_000.5)
DISABLED = Operation("disabled", "user 4711", 1_800_000_001.0)
TWO_POOLS = (
    '[[service]]\nname = "http"',
    '[[pool]]\nname = "api"\nbackends = [{ name = "b", address = "10.0.0.2" }]\n'
    '[[service]]\nname = "http"',
)


def test_what_was_said_survives(tmp_path: Path) -> None:
    directory = tmp_path / "new" / "state"
    operations = Operations.load(directory)
    operations.set(("web", "a"), DRAINED)
    operations.set(("web", "[2001:db8::1]:80"), DISABLED)
    again = Operations.load(directory)
    assert again.get() == {("web", "a"): DRAINED, ("web", "[2001:db8::1]:80"): DISABLED}
    again.end(("web", "a"), "drained")
    assert Operations.load(directory).get() == {("web", "[2001:db8::1]:80"): DISABLED}
    assert os.listdir(directory) == ["operations.json"]


def test_to_start_without_a_state_directory_makes_none(tmp_path: Path) -> None:
    operations = Operations.load(tmp_path / "none")
    assert (operations.get(), operations.problem) == ({}, "")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"),
        ("[]", "version 1"),
        ('{"version": 2, "backends": []}', "version 1"),
        ('{"version": 1}', "backends"),
        ('{"version": 1, "backends": [{"pool": "p"}]}', "mode"),
        (
            '{"version": 1, "backends": [{"pool": "p", "backend": "b", "mode": "off",'
            ' "who": "x", "when": 1}]}',
            "drained or disabled",
        ),
        ('{"version": 1, "backends": [', "Expecting value"),
    ],
)
def test_a_file_that_makes_no_sense_is_set_aside(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "operations.json"
    file.write_text(text)
    operations = Operations.load(tmp_path)
    assert operations.get() == {}
    assert operations.problem.startswith(f"{file}: ")
    assert reason in operations.problem
    assert (tmp_path / "operations.bad").read_text() == text
    operations.set(("web", "a"), DRAINED)
    assert len(json.loads(file.read_text())["backends"]) == 1


def test_ending_what_is_not_so_is_refused(tmp_path: Path) -> None:
    operations = Operations.load(tmp_path)
    operations.set(("web", "a"), DISABLED)
    with pytest.raises(Refused, match="web/b is not drained"):
        operations.end(("web", "b"), "drained")
    with pytest.raises(Refused, match="web/a is disabled, not drained: lbfwd enable"):
        operations.end(("web", "a"), "drained")
    assert operations.get() == {("web", "a"): DISABLED}


UNSHARE = ["unshare", "--map-root-user", "--mount"]
FULL = """
import subprocess, sys
from pathlib import Path
from lbfwd.supervisor.errors import SupervisorError
from lbfwd.supervisor.operations import Operation, Operations
from tests.unit.full_file_system import fill
place = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "lbfwd-test", place], check=True)
operations = Operations.load(place)
operations.set(("web", "a"), Operation("drained", "anna", 1.0))
fill(place)
try:
    operations.set(("web", "b" * 60000), Operation("drained", "anna", 2.0))
except SupervisorError as error:
    print(error)
print(sorted(operations.get()), sorted(Operations.load(place).get()), operations.problem)
print(sorted(path.name for path in place.iterdir()))
"""


def test_a_full_disk_is_named_and_the_old_state_stays(tmp_path: Path) -> None:
    if subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs user and mount namespaces: unshare --map-root-user --mount")
    done = subprocess.run(
        [*UNSHARE, sys.executable, "-c", FULL, str(tmp_path)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"state directory {tmp_path}: No space left on device; nothing was changed",
        "[('web', 'a')] [('web', 'a')] ",
        "['filler', 'operations.json']",
    ]


def test_a_place_where_no_directory_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    operations = Operations.load(tmp_path / "file")
    with pytest.raises(SupervisorError, match=f"state directory {tmp_path}/file: "):
        operations.set(("web", "a"), DRAINED)
    assert operations.get() == {}


@pytest.mark.parametrize(
    ("of", "name", "pool", "found"),
    [
        (config(), "a", None, ("web", "a")),
        (config(), "10.0.0.2", None, ("web", "b")),
        (config(TWO_POOLS), "b", "api", ("api", "b")),
        (config(TWO_POOLS), "a", None, ("web", "a")),
        (config(), "gone", None, ("old", "gone")),
        (config(), "gone", "old", ("old", "gone")),
    ],
)
def test_a_backend_is_found(of: Config, name: str, pool: str | None, found: object) -> None:
    assert find_backend(of, name, pool, {("old", "gone"): DRAINED}) == found


@pytest.mark.parametrize(
    ("name", "pool", "reason"),
    [
        ("c", None, "no backend 'c': a, b"),
        ("a", "api", "no backend 'a' in pool 'api': b"),
        ("b", None, "backend 'b' is in several pools: web, api; say --pool POOL"),
        ("10.0.0.2", None, "backend '10.0.0.2' is in several pools: web, api"),
        ("b", "www", "no pool 'www': web, api"),
    ],
)
def test_names_that_fit_nothing_or_too_much(name: str, pool: str | None, reason: str) -> None:
    with pytest.raises(Refused) as refusal:
        find_backend(config(TWO_POOLS), name, pool, {})
    assert str(refusal.value).startswith(reason)
