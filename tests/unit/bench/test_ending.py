"""Benchmarks that are ended tidy up first: one alone, and one that ``python -m bench`` runs."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lbfwd.demo.lab import eventually

WAIT_S = 20.0
# Tidying up takes longer than the quarter of a second that subprocess gives a child after Ctrl-C.
BENCHMARK = """
import signal, sys, time
from pathlib import Path
from bench.ending import end_cleanly
end_cleanly()
place = Path(sys.argv[1])
try:
    (place / "begun").touch()
    signal.pause()
finally:
    (place / "tidying").touch()
    time.sleep(1)
    (place / "tidy").touch()
"""
ALL = """
import sys
from bench.__main__ import succeeds
from bench.ending import end_cleanly
end_cleanly()
succeeds([sys.executable, *sys.argv[1:]])
"""


def start(*command: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", *command], start_new_session=True)


def begun(place: Path, fact: str) -> None:
    eventually((place / fact).exists, WAIT_S, fact)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_whoever_is_told_again_still_tidies_up(tmp_path: Path, number: signal.Signals) -> None:
    """timeout(1) sends its signal twice: to its child, and to its group."""
    with start(BENCHMARK, str(tmp_path)) as process:
        begun(tmp_path, "begun")
        process.send_signal(number)
        begun(tmp_path, "tidying")
        process.send_signal(number)
        assert process.wait(WAIT_S) == 128 + number
    assert (tmp_path / "tidy").exists()


@pytest.mark.parametrize("tell", [os.kill, os.killpg])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_who_runs_a_benchmark_waits_for_its_end(
    tmp_path: Path, number: signal.Signals, tell: object
) -> None:
    """Ctrl-C goes to both, ``kill`` to one."""
    with start(ALL, "-c", BENCHMARK, str(tmp_path)) as process:
        begun(tmp_path, "begun")
        tell(process.pid, number)
        assert process.wait(WAIT_S) == 128 + number
    assert (tmp_path / "tidy").exists()
