"""A worker process that forwards from memory and checks every frame it emits."""

import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from lbfwd import ring
from lbfwd.shared import CONTROL_BYTES, Control
from lbfwd.tables import FILES

MTU = 1500
TX_SLOTS = 1024
PACKETS_A_LOOK = 64  # between two looks at the connection

Item = tuple[bytes, bytes]  # offload header, frame


@dataclass(frozen=True)
class Report:
    packets: int
    generations: int  # how many different ones it used
    wrong: str  # what it found, or nothing


def forward_until_told(
    directory: Path,
    items: Sequence[Item],
    expected: Sequence[Sequence[Sequence[bytes]]],
    told: Connection,
) -> None:
    """``expected[generation % len(expected)][n]``: what item n becomes under a generation."""
    files = [(directory / name).open("r+b") for name in FILES]
    memory = mmap.mmap(files[0].fileno(), CONTROL_BYTES)
    control = Control(memory)
    worker = ring.Worker(0, *(file.fileno() for file in files))
    worker.add_tx(0, -1, ring.tx_geometry(TX_SLOTS, MTU))
    packets, used, wrong = 0, set(), ""
    told.send("ready")
    while not wrong and not (packets % PACKETS_A_LOOK == 0 and told.poll()):
        n = packets % len(items)
        worker.forward(items[n][1], items[n][0])
        generation = control.slot(0).acknowledged  # the one that this packet saw
        sent = worker.sent(0)
        if sent != expected[generation % len(expected)][n]:
            wrong = f"generation {generation}, item {n}: {[frame[:80].hex() for frame in sent]}"
        used.add(generation)
        packets += 1
    told.send(Report(packets, len(used), wrong))
    worker.close()
    control.release()
    memory.close()
    for file in files:
        file.close()
