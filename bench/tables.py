"""Maglev tables: how long population takes, and figures 11 and 12 of the paper.

Eisenbud et al., NSDI 2016. Population: ours and the paper's pseudocode (section 3.4) in C, compiled
with the same flags, in one process, of the same pools in turns; milliseconds of CPU time a table.
Figures (section 5.3): how even the shares of 1,000 backends are, beside Karger's and rendezvous
hashing; and how many entries change when some of the 1,000 fail at the same time.
"""

import random
import subprocess
import sys
import tempfile
from array import array
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from bench.measure import figure, paired
from bench.program import build
from bench.result import options, save
from bench.rival_hashing import Table, imbalance, karger, rendezvous
from bench.tables_picture import draw_failures, draw_imbalance
from bench.target import Target, at_least
from lbfwd import maglev, ring

SIZES = (65537, 655373)
BACKENDS = 1000
VIEWS = 1000  # of Karger's: the paper's number
DRAWS = 3  # of names: an extreme of 1,000 shares is luck, too
FAILED = (1, 2, 3, 5, 7, 10, 15, 20)  # of 1,000
REPEATS = 200  # the paper's number
ROUNDS = 7

Case = tuple[int, int]  # table size, backends
Times = dict[Case, tuple[list[float], list[float]]]  # → the textbook's and ours, ms, by round


def time_population(rounds: int) -> Times:
    """Measure in a program of its own."""
    with tempfile.TemporaryDirectory() as place:
        command = [str(build("tables", Path(place))), str(rounds)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    times: Times = defaultdict(lambda: ([], []))
    for line in done.stdout.splitlines():
        size, backends, textbook, ours = line.split("\t")
        for column, ms in zip(times[int(size), int(backends)], (textbook, ours), strict=True):
            column.append(float(ms))
    return times


class Pool:
    """1,000 backends and their permutations."""

    def __init__(self, draw: int, size: int) -> None:
        names = sorted(f"backend-{draw}-{number}" for number in range(BACKENDS))
        permutations = [maglev.permutation(name, size) for name in names]
        self._offsets = array("I", [offset for offset, _ in permutations])
        self._skips = array("I", [skip for _, skip in permutations])
        self._size = size

    def table(self, failed: Sequence[int] = ()) -> Table:
        """Return the table without some backends: weight 0 claims nothing."""
        weights = array("I", [1] * BACKENDS)
        for backend in failed:
            weights[backend] = 0
        slots = array("H", bytes(2 * self._size))
        ring.maglev_populate(slots, self._offsets, self._skips, weights)
        return np.frombuffer(slots, dtype=np.uint16)


def shares(fill: Callable[[int], Table]) -> dict[str, float]:
    """Return the least and the greatest share in percent off the average: medians of the draws."""
    extremes = np.array([imbalance(fill(draw), BACKENDS) for draw in range(DRAWS)]) * 100
    least, most = np.median(extremes, axis=0)
    return {"least": float(least), "most": float(most)}


def figure11(size: int) -> dict[str, dict[str, float]]:
    """Return the imbalance by method."""
    backends = np.arange(BACKENDS)
    return {
        "Maglev": shares(lambda draw: Pool(draw, size).table()),
        "Karger": shares(lambda draw: karger(backends, size, VIEWS, draw)),
        "rendezvous": shares(lambda draw: rendezvous(backends, size, draw)),
    }


def figure12(size: int, rng: random.Random) -> dict[str, list[float]]:
    """Return percent of entries that change, by number of failed backends, and the others' part.

    The failed backends' own entries change with any method; what changes beyond them is what
    Maglev hashing gives up for even shares. Averages of the repeats.
    """
    pool = Pool(0, size)
    before = pool.table()
    changed, beyond = [], []
    for count in FAILED:
        both = np.zeros(2)
        for _ in range(REPEATS):
            failed = rng.sample(range(BACKENDS), count)
            moved = pool.table(failed) != before
            both += moved.sum(), (moved & ~np.isin(before, failed, kind="table")).sum()
        every, others = both / REPEATS / size * 100
        changed.append(float(every))
        beyond.append(float(others))
    return {"failed": [100 * n / BACKENDS for n in FAILED], "changed": changed, "beyond": beyond}


def targets(times: Times) -> list[Target]:
    """Compare with the textbook, round by round."""
    return [
        at_least(
            f"population, M = {size}, 1,000 backends: textbook's time ÷ ours",
            4,
            paired(*times[size, BACKENDS]),
        )
        for size in SIZES
    ]


def population(times: Times) -> list[Mapping[str, object]]:
    """Return the figures for the result, and print them."""
    rows: list[Mapping[str, object]] = []
    print("M         backends   textbook, ms                ours, ms                    ÷")
    for (size, backends), (textbook, ours) in times.items():
        row = {"textbook_ms": textbook, "ours_ms": ours, "ratio": paired(textbook, ours)}
        found = {name: figure(values) for name, values in row.items()}
        print(f"{size:<10}{backends:<10}", *(f"{one!s:<27}" for one in found.values()))
        plain = {name: one.plain() for name, one in found.items()}
        rows.append({"size": size, "backends": backends, **plain})
    return rows


def main() -> int:
    """Measure, save, draw."""
    chosen = options(__doc__, ROUNDS).parse_args()
    times = time_population(chosen.rounds)
    even = {str(size): figure11(size) for size in SIZES}
    rng = random.Random(12)
    failures = {str(size): figure12(size, rng) for size in SIZES}
    figures = {"population": population(times), "figure11": even, "figure12": failures}
    save("tables", chosen, figures, targets(times))
    draw_imbalance(even, chosen.out / "figure11.png")
    draw_failures(failures, chosen.out / "figure12.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
