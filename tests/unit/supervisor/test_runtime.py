"""The runtime directory: lock, recorded workers, orphans."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbfwd.supervisor.errors import SupervisorError
from lbfwd.supervisor.runtime import ProcessId, RuntimeDirectory, start_time

SLEEPER = [sys.executable, "-c", "import signal; signal.pause()"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); "
    "signal.pause()",
]


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(SLEEPER) as process:
        yield process
        process.kill()


def test_a_second_one_is_refused_and_told_the_first_ones_pid(tmp_path: Path) -> None:
    first = RuntimeDirectory.take(tmp_path)
    with pytest.raises(SupervisorError, match=rf"{tmp_path}.*pid {os.getpid()}\b"):
        RuntimeDirectory.take(tmp_path)
    first.close()
    RuntimeDirectory.take(tmp_path).close()


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SupervisorError, match=r"file/below: Not a directory"):
        RuntimeDirectory.take(tmp_path / "file" / "below")


@pytest.mark.parametrize("name", ["python3", "a b", "(x) y", ") R 1 2 3"])
def test_the_start_time_is_field_22_whatever_the_name(name: str) -> None:
    rest = [str(number) for number in range(3, 53)]  # field n holds n
    assert start_time(f"17 ({name}) {' '.join(rest)}") == 22


def test_a_process_is_told_from_a_later_one_of_the_same_number(
    sleeper: subprocess.Popen[bytes],
) -> None:
    boot_ticks = float(Path("/proc/uptime").read_text().split()[0]) * os.sysconf("SC_CLK_TCK")
    started = ProcessId.of(sleeper.pid).started
    assert boot_ticks - 60 * os.sysconf("SC_CLK_TCK") < started <= boot_ticks + 1


def test_orphans_are_those_recorded_that_still_run(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    alive = ProcessId.of(sleeper.pid)
    other = ProcessId(alive.pid, alive.started - 1)  # the number was used again since
    first = RuntimeDirectory.take(tmp_path)
    first.record([alive, other, ProcessId(2**22 + 1, 5)])
    # A supervisor that dies leaves the record and loses the lock.
    os.close(first._lock_fd)
    second = RuntimeDirectory.take(tmp_path)
    assert second.orphans == (alive,)
    second.close()


def test_orphans_are_stopped(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    runtime = _with_orphan(tmp_path, sleeper.pid)
    assert asyncio.run(runtime.end_orphans(grace_s=30.0)) == (ProcessId.of(sleeper.pid),)
    assert sleeper.wait(timeout=0) == -15
    runtime.close()
    assert not (tmp_path / "workers.json").exists()


def test_an_orphan_that_does_not_obey_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen(STUBBORN, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        runtime = _with_orphan(tmp_path, process.pid)
        asyncio.run(runtime.end_orphans(grace_s=0.05))
        assert process.wait(timeout=0) == -9
        runtime.close()


def test_a_start_that_fails_leaves_orphans_recorded(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    runtime = _with_orphan(tmp_path, sleeper.pid)
    runtime.record([ProcessId.of(os.getpid())])  # workers of the start that fails
    runtime.close()
    again = RuntimeDirectory.take(tmp_path)
    assert again.orphans == (ProcessId.of(sleeper.pid),)
    again.close()


@pytest.mark.parametrize("text", ["", "{", "[1]", '[{"pid": "x", "started": 1}]', "null"])
def test_a_broken_record_names_nobody(tmp_path: Path, text: str) -> None:
    (tmp_path / "workers.json").write_text(text)
    runtime = RuntimeDirectory.take(tmp_path)
    assert runtime.orphans == ()
    runtime.close()


def _with_orphan(tmp_path: Path, pid: int) -> RuntimeDirectory:
    first = RuntimeDirectory.take(tmp_path)
    first.record([ProcessId.of(pid)])
    os.close(first._lock_fd)
    return RuntimeDirectory.take(tmp_path)
