"""The units: systemd reads every line of them, and finds little that they may do."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
UNITS = sorted((ROOT / "deploy").glob("*.service"))
PROGRAM = "/usr/bin/lbfwd"
# Tenths of what `systemd-analyze security` calls exposure: 0 (none) to 10. The network of the host
# alone, which they are for, is 1.2.
LARGEST_EXPOSURE = {"lbfwd.service": 28, "lbfwd-backend.service": 25, "lbfwd-tune.service": 28}


def analyze(*arguments: str) -> "subprocess.CompletedProcess[str]":
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is missing (Debian package systemd)")
    command = ["systemd-analyze", "--no-pager", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def name(path: Path) -> str:
    return path.name


def test_there_is_a_limit_for_each() -> None:
    assert {unit.name for unit in UNITS} == set(LARGEST_EXPOSURE)


@pytest.mark.parametrize("unit", UNITS, ids=name)
def test_systemd_understands_every_line(unit: Path, tmp_path: Path) -> None:
    # Only a program that is there is let through, and lbfwd need not be installed here.
    text = unit.read_text().replace(PROGRAM, shutil.which("true") or "/bin/true")
    copy = tmp_path / unit.name
    copy.write_text(text)
    done = analyze("verify", "--man=no", str(copy))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("unit", UNITS, ids=name)
def test_little_is_allowed(unit: Path) -> None:
    threshold = LARGEST_EXPOSURE[unit.name]
    done = analyze("security", "--offline=yes", f"--threshold={threshold}", str(unit))
    assert done.returncode == 0, done.stdout[-300:] + done.stderr


def test_what_a_dead_supervisor_leaves_is_left_alone() -> None:
    text = (ROOT / "deploy/lbfwd.service").read_text()
    for line in ("KillMode=process", "RuntimeDirectoryPreserve=yes", "Restart=on-failure"):
        assert re.search(f"^{line}$", text, re.M), line
