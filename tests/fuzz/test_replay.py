"""The packet path under AddressSanitizer and UndefinedBehaviorSanitizer."""

import dataclasses
import random
import struct
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from lbfwd.tables import FILES, Tables
from tests.fuzz.building import build
from tests.packet import bench, corpus
from tests.packet.crafted import frame, offload
from tests.packet.fleet import peers

SEED = 20160318
MUTATIONS = 8000
DAMAGED_STATES = 1500
TIMEOUT_S = 120


@pytest.fixture(scope="module")
def replay(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("replay", tmp_path_factory.mktemp("replay"), "address,undefined")


def record(item: corpus.Item) -> bytes:
    return struct.pack("=I", sum(map(len, item))) + item[0] + item[1]


def run(program: Path, directory: Path, items: Iterable[corpus.Item], rounds: int) -> list[str]:
    """Replay over a published state; returns the lines of its summary."""
    frames = directory / "frames"
    frames.write_bytes(b"".join(record(item) for item in items))
    tables = Tables.create(directory, 1, 1024)
    tables.publish(dataclasses.replace(bench.all_combinations(), peers=peers()))
    files = [str(directory / name) for name in FILES]
    done = subprocess.run(
        [str(program), *files, str(frames), str(SEED), str(rounds)],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    tables.close(unlink=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_all_packet_tests_frames_and_many_mutations(replay: Path, tmp_path: Path) -> None:
    rng = random.Random(SEED)
    mutations = [corpus.mutate(rng, rng.choice(corpus.seeds())) for _ in range(MUTATIONS)]
    lines = run(replay, tmp_path, [*corpus.seeds(), *mutations], rounds=0)
    seen, counted = (int(lines[0].split()[n]) for n in (0, 2))
    assert seen == counted >= len(corpus.seeds()) + MUTATIONS


def test_damaged_states(replay: Path, tmp_path: Path) -> None:
    """What the check lets pass must be safe to forward with."""
    items = [
        (offload(), frame(f, p, port=80 + to))
        for f in (4, 6)
        for p in ("tcp", "udp")
        for to in (4, 6)
    ]
    lines = run(replay, tmp_path, items, DAMAGED_STATES)
    accepted = int(lines[1].split()[0])
    assert 100 < accepted < DAMAGED_STATES - 100, "both outcomes should be tried"
