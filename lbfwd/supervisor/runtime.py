"""The runtime directory: one supervisor at a time, and the workers that a dead one left behind."""

import asyncio
import contextlib
import fcntl
import json
import os
import signal
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from lbfwd.supervisor.errors import SupervisorError

DEFAULT = Path("/run/lbfwd")
ADMIN_SOCKET = "admin.sock"
LOCK = "lock"
WORKERS = "workers.json"


@dataclass(frozen=True)
class ProcessId:
    """A process, and not another one that got the same number later.

    ``started``: field 22 of /proc/PID/stat (proc(5)), clock ticks since boot.
    """

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Self:
        """Identify a running process. Raises FileNotFoundError when there is none."""
        return cls(pid, start_time(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")))


def start_time(stat: str) -> int:
    """Return the start time in a text of /proc/PID/stat; the name in it may hold anything."""
    return int(stat.rpartition(")")[2].split()[19])


class RuntimeDirectory:
    """The directory, locked for as long as this object is open."""

    def __init__(self, path: Path, lock_fd: int) -> None:
        """Use ``take``."""
        self.path = path
        self.orphans = tuple(worker for worker in _recorded(path / WORKERS) if _runs(worker))
        """Workers of a supervisor that is gone, which still run."""
        self._lock_fd = lock_fd

    @classmethod
    def take(cls, path: Path) -> Self:
        """Create and lock. Raises SupervisorError when another supervisor runs in it."""
        try:
            path.mkdir(mode=0o755, parents=True, exist_ok=True)
            lock_fd = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SupervisorError(f"runtime directory {path}: {error.strerror}") from error
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(lock_fd, 32, 0).decode(errors="replace").strip()
            os.close(lock_fd)
            raise SupervisorError(
                f"runtime directory {path}: another lbfwd runs there (pid {pid}); "
                "one directory belongs to one lbfwd"
            ) from None
        os.ftruncate(lock_fd, 0)
        os.pwrite(lock_fd, f"{os.getpid()}\n".encode(), 0)
        return cls(path, lock_fd)

    def record(self, workers: Iterable[ProcessId]) -> None:
        """Write down which workers run, for a successor that finds them without a supervisor."""
        text = json.dumps([asdict(worker) for worker in (*self.orphans, *workers)])
        aside = self.path / f"{WORKERS}.new"
        aside.write_text(text, encoding="utf-8")
        aside.replace(self.path / WORKERS)

    async def end_orphans(self, grace_s: float) -> tuple[ProcessId, ...]:
        """Stop the orphans: SIGTERM, then SIGKILL after ``grace_s``. Returns who was stopped."""
        ended = self.orphans
        await asyncio.gather(*(_end(orphan, grace_s) for orphan in ended))
        self.orphans = ()
        return ended

    def close(self) -> None:
        """Unlink what belongs to this supervisor and let the directory go.

        The lock file stays: a file unlinked under a waiting second supervisor would give two
        supervisors a lock each.
        """
        if self.orphans:  # the start failed before their place was taken: they forward on
            self.record(())
        else:
            (self.path / WORKERS).unlink(missing_ok=True)
        os.ftruncate(self._lock_fd, 0)
        os.close(self._lock_fd)


def _recorded(path: Path) -> tuple[ProcessId, ...]:
    """Return the recorded workers; a file that cannot be read names none."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return tuple(ProcessId(int(row["pid"]), int(row["started"])) for row in rows)
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def _runs(worker: ProcessId) -> bool:
    with contextlib.suppress(OSError):
        return ProcessId.of(worker.pid) == worker
    return False


async def _end(worker: ProcessId, grace_s: float) -> None:
    """Stop a process that is not our child; it is gone when this returns."""
    try:
        pidfd = os.pidfd_open(worker.pid)
    except ProcessLookupError:
        return
    try:
        # The descriptor pins the process, so what is checked now is what gets the signal.
        if not _runs(worker):
            return
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        try:
            await asyncio.wait_for(_readable(pidfd), grace_s)
        except TimeoutError:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            await _readable(pidfd)
    except ProcessLookupError:
        return
    finally:
        os.close(pidfd)


async def _readable(fd: int) -> None:
    """Wait until a descriptor is readable: for a pidfd, until its process has ended."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(fd)
