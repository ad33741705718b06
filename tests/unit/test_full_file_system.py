"""/run is full: what is in force goes on, what is new is refused, and nobody gets a SIGBUS."""

import subprocess
import sys
from pathlib import Path

import pytest

UNSHARE = ["unshare", "--map-root-user", "--mount"]


def test_a_full_runtime_directory(tmp_path: Path) -> None:
    if subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs user and mount namespaces: unshare --map-root-user --mount")
    done = subprocess.run(
        [*UNSHARE, sys.executable, "-m", "tests.unit.full_file_system", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    refused, not_created = done.stdout.splitlines()
    assert refused.startswith("generation 2 was not published: ")
    assert "No space left on device" in refused
    assert not_created == "No space left on device ['filler']"
