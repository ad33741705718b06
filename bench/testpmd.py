"""DPDK's ``dpdk-testpmd`` on a stage: net_af_packet, io mode. It decides nothing and adds nothing.

It needs a stage of its own: a DPDK port also taps what leaves its output interface, and would slow
the others there.
"""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.contestants import START_S, Contestant, Thread, end
from bench.stage import FORWARD_CPU, IN, OTHER_CPU, OUT, Stage
from lbfwd.demo.lab import LabError, eventually

PROGRAM = "dpdk-testpmd"
FRAMES = 65536  # of each ring
RING = f"qdisc_bypass=1,blocksz=1048576,framesz=2048,framecnt={FRAMES}"
_READY = "Press enter to exit"


def command() -> list[str]:
    """Return the command line: one lcore forwards, the main one waits on the other core."""
    eal = ["--no-huge", "-m", "256", "--no-shconf", "--no-pci", "--no-telemetry"]
    eal += ["--lcores", f"0@{OTHER_CPU},1@{FORWARD_CPU}", "--main-lcore", "0"]
    ports = [
        f"--vdev=net_af_packet{number},iface={interface},{RING}"
        for number, interface in enumerate((IN, OUT))
    ]
    application = ["--forward-mode=io", "--port-topology=paired", "--nb-cores=1", "--auto-start"]
    line_buffered = ["stdbuf", "-oL", PROGRAM]
    return [*line_buffered, *eal, *ports, "--", *application, "--total-num-mbufs=16384"]


def worker(pid: int) -> Thread:
    """Return the thread of the forwarding lcore."""
    for comm in Path(f"/proc/{pid}/task").glob("*/comm"):
        if comm.read_text(encoding="ascii").strip() in {"rte-worker-1", "lcore-worker-1"}:
            return Thread(pid, int(comm.parent.name))
    raise LabError(f"{PROGRAM} has no forwarding thread")


def ready(process: "subprocess.Popen[Any]", log: Path) -> bool:
    """Return whether it forwards. Raises LabError when it has ended."""
    text = log.read_text(encoding="utf-8")
    if process.poll() is not None:
        raise LabError(f"{PROGRAM} has ended:\n{text}")
    return _READY in text


@contextmanager
def testpmd(stage: Stage, directory: Path) -> Iterator[Contestant]:
    """Run it until the block ends. Raises LabError where it is not installed or does not start."""
    if shutil.which(PROGRAM) is None:
        raise LabError(f"needs {PROGRAM} (Debian: dpdk-dev)")
    log = directory / "testpmd.log"
    with log.open("w", encoding="utf-8") as output:
        # Its stdin stays open: it forwards until there is something to read.
        process = stage.node.start(
            *command(), stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        eventually(lambda: ready(process, log), START_S, f"{PROGRAM} starts")
        yield Contestant("testpmd io", (worker(process.pid),))
    finally:
        end(process)
