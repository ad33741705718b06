"""Starts the generator (generate.c) on a stage, on the core that does not forward."""

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.contestants import REAL_TIME
from bench.frames import Shape, frame
from bench.program import build
from bench.stage import IN, OTHER_CPU, Stage, mac_bytes
from lbfwd.demo.lab import LabError

TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Report:
    """What the generator did."""

    sent: int
    nanoseconds: int

    @property
    def rate(self) -> float:
        """Frames a second."""
        return self.sent * 1e9 / self.nanoseconds


class Running:
    """A generator at work."""

    def __init__(self, process: "subprocess.Popen[Any]") -> None:
        """Use ``Generator.start``."""
        self.process = process

    def stop(self) -> Report:
        """End it and return what it sent. By then the node's rings have all of it."""
        self.process.terminate()
        return self.wait()

    def wait(self) -> Report:
        """Wait until it has sent its count. Raises LabError where it failed."""
        output, complaint = self.process.communicate(timeout=TIMEOUT_S)
        if self.process.returncode != 0:
            raise LabError(f"the generator failed: {complaint.strip()}")
        sent, nanoseconds = output.split()
        return Report(int(sent), int(nanoseconds))


class Generator:
    """Sends flows of one shape into a stage; each run is a process."""

    def __init__(self, stage: Stage, directory: Path) -> None:
        """Build the program in a directory, which also holds its frames."""
        self._stage = stage
        self._directory = directory
        self._program = build("generate", directory)
        self._macs = mac_bytes(stage.node, IN), mac_bytes(stage.gen, "g0")

    def start(
        self, shape: Shape, flows: int, *, first: int = 0, count: int = 0, rate: int = 0
    ) -> Running:
        """Start to send ``flows`` flows in turn, in an order that looks random.

        ``first``: number of the first flow (runs with numbers of their own have new flows).
        ``count``: frames to send; 0: until it is stopped. ``rate``: frames a second; 0: as fast
        as it goes.
        """
        with tempfile.NamedTemporaryFile(dir=self._directory, delete=False) as file:
            file.write(frame(shape, *self._macs))
        numbers = [str(number) for number in (flows, first, count, rate)]
        place = ["chrt", "--fifo", str(REAL_TIME), "taskset", "-c", str(OTHER_CPU)]
        command = [*place, str(self._program), "g0", file.name, *numbers]
        pipe = subprocess.PIPE
        return Running(self._stage.gen.start(*command, stdout=pipe, stderr=pipe, text=True))

    def send(
        self, shape: Shape, flows: int, count: int, *, first: int = 0, rate: int = 0
    ) -> Report:
        """Send so many frames and wait until they are in the node's rings."""
        return self.start(shape, flows, first=first, count=count, rate=rate).wait()
