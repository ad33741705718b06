"""What a worker takes beside its rings and tables: ``python -m bench.memory``.

Reads /proc/PID/smaps (proc_pid_smaps(5)) of a real worker that forwards. Counted is every resident
page, shared libraries in full; left out are its rings and the files of the node's shared state,
whose sizes the configuration decides. Every round is a new worker. The interpreter's own share is
that of a Python process that has imported nothing.
"""

import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from bench import result
from bench.frames import Shape
from bench.generate import Generator
from bench.measure import figure
from bench.node_run import Node, config, running
from bench.stage import Stage
from bench.target import at_most
from lbfwd.demo.lab import Lab, eventually
from lbfwd.tables import FILES

MOST_MIB = 40
PACKETS = 100_000
RATE = 100_000
FORWARD_S = 20.0
_MAPPING = re.compile(r"[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \d+ *(.*)")
_KINDS = ("Rss", "Pss", "Private_Dirty")


def sizes(smaps: str) -> dict[str, dict[str, int]]:
    """Return KiB by kind of a process' memory and by what is mapped there, from its smaps."""
    found: dict[str, dict[str, int]] = {kind: defaultdict(int) for kind in _KINDS}
    name = ""
    for line in smaps.splitlines():
        key, _, value = line.partition(":")
        if mapping := _MAPPING.fullmatch(line):
            name = mapping[1]
        elif key in found:
            found[key][name] += int(value.split()[0])
    return found


def is_ring_or_table(name: str, place: Path) -> bool:
    """Return whether a mapping is a ring (a packet socket's) or a file of the node's state.

    ``place``: a directory that the node's runtime directory is in, or is.
    """
    path = Path(name)
    return name.startswith("socket:") or (path.name in FILES and place in path.parents)


def beside(by_name: Mapping[str, int], place: Path) -> float:
    """Return the MiB of all other mappings."""
    return sum(kib for name, kib in by_name.items() if not is_ring_or_table(name, place)) / 1024


def measure(stage: Stage, generator: Generator, directory: Path) -> dict[str, float]:
    """Return MiB by kind of a new worker that has forwarded; with its rings and tables: "all"."""
    with running(stage, directory, config()) as node:
        generator.send(Shape(), PACKETS // 10, PACKETS, rate=RATE)
        eventually(lambda: seen(node) == PACKETS, FORWARD_S, "the worker forwards")
        found = sizes(smaps_of(node.status()["workers"][0]["pid"]))
    figures = {kind: beside(by_name, directory) for kind, by_name in found.items()}
    return figures | {"all": sum(found["Rss"].values()) / 1024}


def seen(node: Node) -> int:
    """Return the packets that the worker took from its rings."""
    return int(node.status()["workers"][0]["seen"])


def smaps_of(pid: int) -> str:
    """Read a process' mappings."""
    return Path(f"/proc/{pid}/smaps").read_text(encoding="utf-8")


def bare_interpreter() -> float:
    """Return the resident MiB of an interpreter that does nothing."""
    code = "import sys; print(flush=True); sys.stdin.read()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        process.stdout.readline()
        return sum(sizes(smaps_of(process.pid))["Rss"].values()) / 1024


def main() -> None:
    """Measure, print and save."""
    chosen = result.options(__doc__, rounds=5).parse_args()
    with tempfile.TemporaryDirectory() as place, Lab() as lab:
        stage = Stage(lab)
        generator = Generator(stage, Path(place))
        runs = [measure(stage, generator, Path(place)) for _ in range(chosen.rounds)]
    found = {kind: figure([run[kind] for run in runs]) for kind in runs[0]}
    bare = figure([bare_interpreter() for _ in range(chosen.rounds)])
    for kind, value in found.items():
        print(f"worker, {kind}: {value} MiB")
    print(f"Python alone, Rss: {bare} MiB")
    plain = {kind: value.plain() for kind, value in found.items()}
    target = at_most(
        "memory: MiB of a worker beside its rings and tables", MOST_MIB, [r["Rss"] for r in runs]
    )
    result.save("memory", chosen, {"worker": plain, "python_alone": bare.plain()}, [target])


if __name__ == "__main__":
    main()
