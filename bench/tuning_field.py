"""Nodes with different settings on one stage, all of which stand still but one at a time.

Each has a copy of every frame in its rings; what leaves the stage is that one's.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.contestants import Contestant, frozen
from bench.frames import Shape
from bench.generate import Generator, Report
from bench.node_run import running
from bench.stage import Stage, waiting_in_softirq
from bench.tuning_settings import Setting
from lbfwd.demo.lab import Lab, eventually

FLOWS = 10_000
SETTLE_S = 10.0
LOOK_S = 0.015
QUIET_LOOKS = 20


@dataclass(frozen=True)
class Field:
    """A stage with its nodes, by setting."""

    stage: Stage
    generator: Generator
    contestants: dict[Setting, Contestant]

    def fill(self, packets: int, rate: int = 0) -> Report:
        """Send so many packets; what the rings have room for is in them afterwards."""
        report = self.generator.send(Shape(), FLOWS, packets, rate=rate)
        eventually(lambda: waiting_in_softirq() == 0, SETTLE_S, "receive softirqs are idle")
        return report

    def empty(self, setting: Setting) -> int:
        """Let a node forward all that its rings hold; returns how many packets that were."""
        contestant = self.contestants[setting]
        sent = contestant.sent
        before, seen, quiet = sent.packets(), 0, 0
        contestant.release()
        while quiet < QUIET_LOOKS:  # looks, not time: we may be held up ourselves
            time.sleep(LOOK_S)
            now = sent.packets() - before
            quiet = 0 if now > seen or is_runnable(contestant.forwarders[0].pid) else quiet + 1
            seen = now
        contestant.freeze()
        return seen


def is_runnable(pid: int) -> bool:
    """Return whether a process works, or waits for a core that others have: proc_pid_stat(5)."""
    text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    return text.rpartition(")")[2].split()[0] == "R"


@contextmanager
def field(settings: Sequence[Setting], directory: Path) -> Iterator[Field]:
    """Start a node for each setting, on a new stage."""
    with Lab() as lab, ExitStack() as stack:
        stage = Stage(lab)
        contestants = {}
        directory.mkdir(parents=True)
        for setting in dict.fromkeys(settings):
            node = stack.enter_context(running(stage, directory, setting.toml()))
            contestants[setting] = node.contestant(setting.name)
        stack.enter_context(frozen(list(contestants.values())))
        yield Field(stage, Generator(stage, directory), contestants)
