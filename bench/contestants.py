"""What forwards on a stage, alike for all: it can be frozen, let go, and asked for its CPU time."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.rings import Rings
from bench.stage import FORWARD_CPU, IN, OUT, Sent, Stage, mac
from lbfwd.demo.lab import LabError, eventually, stop

START_S = 30.0
FREEZE_S = 5.0
REAL_TIME = 1  # priority of SCHED_FIFO: before everything that is not real time, sched(7)


@dataclass(frozen=True)
class Thread:
    """A thread that forwards."""

    pid: int
    tid: int

    def prefer(self) -> None:
        """Put it before whatever else wants its core, as if the core were isolated."""
        os.sched_setscheduler(self.tid, os.SCHED_FIFO, os.sched_param(REAL_TIME))

    def ran_ns(self) -> int:
        """Return how long it had a core; exact while it stands still."""
        return self._schedstat()[0]

    def waited_ns(self) -> int:
        """Return how long it was ready to run while something else had its core."""
        return self._schedstat()[1]

    def _schedstat(self) -> list[int]:
        """Return the numbers of Linux's Documentation/scheduler/sched-stats.rst."""
        path = Path(f"/proc/{self.pid}/task/{self.tid}/schedstat")
        return [int(number) for number in path.read_text(encoding="ascii").split()]


@dataclass(frozen=True)
class Contestant:
    """A forwarder on a stage.

    ``helpers``: processes that do not forward but watch those that do; they stay frozen.
    """

    name: str
    forwarders: tuple[Thread, ...]
    helpers: tuple[int, ...] = ()

    @property
    def sent(self) -> Sent:
        """What leaves its node."""
        return Sent(self.forwarders[0].pid)

    def waited_ns(self) -> float:
        """Return how long its threads had to wait for their cores, on average."""
        return sum(thread.waited_ns() for thread in self.forwarders) / len(self.forwarders)

    def prefer(self) -> None:
        """Put its threads before whatever else wants their cores."""
        for thread in self.forwarders:
            thread.prefer()

    def freeze(self) -> None:
        """Stop everything, the watchers first; returns when all stand still."""
        pids = [*self.helpers, *(thread.pid for thread in self.forwarders)]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        eventually(lambda: all(stands_still(pid) for pid in pids), FREEZE_S, f"{self.name} stops")

    def release(self) -> None:
        """Let the forwarders go on; helpers wait for ``thaw``."""
        for thread in self.forwarders:
            os.kill(thread.pid, signal.SIGCONT)

    def thaw(self) -> None:
        """Let everything go on."""
        self.release()
        for pid in self.helpers:
            os.kill(pid, signal.SIGCONT)


@contextmanager
def frozen(contestants: Sequence[Contestant]) -> Iterator[None]:
    """Have them stand still, and be preferred when they are let go, until the block ends."""
    try:
        for contestant in contestants:
            contestant.prefer()
            contestant.freeze()
        yield
    finally:
        for contestant in contestants:
            contestant.thaw()


def stands_still(pid: int) -> bool:
    """Return whether every thread of a process is stopped: proc_pid_stat(5), field 3."""
    tasks = Path(f"/proc/{pid}/task").glob("*/stat")
    return all(
        task.read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "T" for task in tasks
    )


@contextmanager
def reflecting(
    stage: Stage,
    program: Path,
    mode: Literal["linear", "plain"] = "linear",
    rings: Rings | None = None,
    cpu: int = FORWARD_CPU,
) -> Iterator[Contestant]:
    """Run a reflector, built by ``program.build("reflect", …)``, until the block ends."""
    module = [sys.executable, "-m", "bench.reflect", str(program), IN, OUT, mac(stage.sink, "s0")]
    options = ["--mode", mode, "--cpu", str(cpu), "--rings", (rings or Rings()).text()]
    process = stage.node.start(*module, *options, stdout=subprocess.PIPE, text=True)
    try:
        if process.stdout is None or process.stdout.readline() != "ready\n":
            raise LabError(f"the {mode} reflector did not start")
        yield Contestant(f"{mode} reflector", (Thread(process.pid, process.pid),))
    finally:
        end(process)


def end(process: "subprocess.Popen[Any]") -> None:
    """Stop a process and close its pipes."""
    stop(process)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
