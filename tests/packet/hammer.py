"""A worker process that goes on rewriting one bucket of its flow table."""

from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from lbfwd import ring
from lbfwd.tables import FILES

ROUNDS_A_LOOK = 200  # between two looks at the connection


def forward_in_turn(directory: Path, slot: int, frames: Sequence[bytes], told: Connection) -> None:
    """Forward the frames again and again until told; then say how often."""
    files = [(directory / name).open("r+b") for name in FILES]
    worker = ring.Worker(slot, *(file.fileno() for file in files))
    rounds = 0
    told.send("ready")
    while not (rounds % ROUNDS_A_LOOK == 0 and told.poll()):
        for frame in frames:
            worker.forward(frame)  # no TX ring: the entry is made nevertheless
        rounds += 1
    told.send(rounds)
    worker.close()
    for file in files:
        file.close()
