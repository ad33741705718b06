"""Starts the prober (probe.c) on a stage: a steady stream from the generator's side to the sink.

It runs on the core that does not forward, under SCHED_FIFO: a stream that the supervisor or the
generator could hold up would measure them.
"""

import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.frames import Shape, frame
from bench.program import build
from bench.stage import IN, OTHER_CPU, Stage, mac_bytes
from bench.stream import Stream
from lbfwd.demo.lab import Host, LabError

FLOWS = 100
PRIORITY = 10  # before the generator
TIMEOUT_S = 60.0
_PORT_AT = 14 + 20
_CHECKSUM_AT = 14 + 20 + 6


@dataclass(frozen=True)
class Way:
    """From an interface of the generator's namespace to one of the sink's."""

    source: Host
    output: str
    sink: Host
    input: str
    macs: tuple[bytes, bytes]
    """Destination and source."""


def way_through_node(stage: Stage) -> Way:
    """Return the way of the packets that are forwarded."""
    macs = mac_bytes(stage.node, IN), mac_bytes(stage.gen, "g0")
    return Way(stage.gen, "g0", stage.sink, "s0", macs)


def direct_way(stage: Stage) -> Way:
    """Make a cable from generator to sink, past the node."""
    stage.lab.link(stage.gen, "g1", [], stage.sink, "s1", [])
    macs = mac_bytes(stage.sink, "s1"), mac_bytes(stage.gen, "g1")
    return Way(stage.gen, "g1", stage.sink, "s1", macs)


def templates(macs: tuple[bytes, bytes]) -> list[bytes]:
    """Return a frame of 60 bytes a flow: UDP to the VIP, without a UDP checksum (RFC 768).

    The prober writes the end of the payload.
    """
    first = frame(Shape(protocol="udp"), *macs)
    rest = first[_PORT_AT + 2 : _CHECKSUM_AT] + bytes(2) + first[_CHECKSUM_AT + 2 :]
    return [first[:_PORT_AT] + struct.pack("!H", 1024 + n) + rest for n in range(FLOWS)]


class Running:
    """A stream that flows."""

    def __init__(self, process: "subprocess.Popen[Any]") -> None:
        """Use ``Prober.start``."""
        self._process = process

    def stop(self) -> Stream:
        """End it and return it."""
        self._process.terminate()
        return self.wait()

    def wait(self) -> Stream:
        """Wait until it has ended. Raises LabError where the prober failed."""
        output, complaint = self._process.communicate(timeout=TIMEOUT_S)
        if self._process.returncode != 0:
            raise LabError(f"the prober failed: {complaint.decode().strip()}")
        return Stream.parse(output)


class Prober:
    """Sends streams; each one is a process."""

    def __init__(self, directory: Path) -> None:
        """Build the program in a directory, which also holds its frames."""
        self._directory = directory
        self._program = build("probe", directory)

    def start(self, way: Way, rate: int, most: int) -> Running:
        """Send ``rate`` frames a second, until ``most`` are sent or it is stopped."""
        frames = templates(way.macs)
        file = self._directory / f"probes-{way.output}"
        file.write_bytes(b"".join(frames))
        pinned = ["chrt", "-f", str(PRIORITY), "taskset", "-c", str(OTHER_CPU)]
        ends = [way.source.netns, way.output, way.sink.netns, way.input]
        numbers = [str(len(frames[0])), str(rate), str(most)]
        command = [*pinned, str(self._program), *ends, str(file), *numbers]
        pipe = subprocess.PIPE
        return Running(way.source.start(*command, stdout=pipe, stderr=pipe))
