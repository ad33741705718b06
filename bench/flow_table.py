"""How full the flow table can be: ``python -m bench.flow_table [--flows N] [--spare S …]``.

Live confirmed flows are sent through the packet path until 50, 90 and 100 % of ``flows`` are there;
then the entries in the table are counted. A flow that has none overflowed: it is served by the
Maglev table alone. Every round has flows of its own. For each number of entries a flow (``SPARE``
in lbfwd/tables.py is the one in use): the bytes a flow, and the share of flows that overflowed.
"""

import mmap
import random
import tempfile
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from math import inf
from pathlib import Path
from unittest import mock

from bench import result
from bench.measure import figure
from bench.node import forwarding, segment
from bench.target import at_most
from lbfwd import tables
from lbfwd.ring import Worker, tx_geometry
from lbfwd.shared import BUCKET_BYTES, FLOW_WAYS, FLOWS_HEADER
from lbfwd.tables import Tables

LOADS = (0.5, 0.9, 1.0)
MOST_OVERFLOW = 0.01
PACKETS_A_FLOW = 2  # the second confirms it
TX_SLOTS = 256
ENTRY_WORDS = 2


def live_entries(node: Tables) -> int:
    """Count the entries that are in use, as they lie in the file."""
    with (
        mmap.mmap(node.files()[3], 0, prot=mmap.PROT_READ) as memory,
        memoryview(memory) as view,
        view[FLOWS_HEADER:] as region,
        region.cast("Q") as words,
    ):
        return sum(1 for value in words[1::ENTRY_WORDS] if value)


def sources(rng: random.Random, flows: int) -> Iterator[tuple[bytes, int]]:
    """Give different clients, address and port."""
    for number in rng.sample(range(2**32, 2**44), flows):
        yield ip_address(number >> 12 & 0xFFFFFFFF).packed, 1024 + (number & 0xFFF)


def overflow(directory: Path, flows: int, seed: int) -> list[float]:
    """Return the share of flows without an entry at each load."""
    node = Tables.create(directory, 1, flows)
    node.publish(forwarding())
    worker = Worker(0, *node.files())
    worker.add_tx(0, -1, tx_geometry(TX_SLOTS, 1500))
    shares, sent = [], 0
    clients = sources(random.Random(seed), flows)
    for load in LOADS:
        while sent < round(load * flows):
            frame = segment(*next(clients))
            for _ in range(PACKETS_A_FLOW):
                worker.forward(frame)
            sent += 1
            if sent % (TX_SLOTS // PACKETS_A_FLOW) == 0:
                worker.sent(0)
        shares.append(1 - live_entries(node) / sent)
    worker.close()
    node.close(unlink=True)
    return shares


def measure(flows: int, spare: float, rounds: int) -> list[list[float]]:
    """Return the overflow at each load, a list a round, for one number of entries a flow."""
    with tempfile.TemporaryDirectory() as place, mock.patch.object(tables, "SPARE", spare):
        return [overflow(Path(place), flows, seed) for seed in range(rounds)]


def bytes_a_flow(spare: float) -> float:
    """Return the bytes of the table for each of ``flows``."""
    return spare * BUCKET_BYTES / FLOW_WAYS


def bytes_a_live_flow(spare: float, shares: Sequence[float]) -> float:
    """Return the bytes for each flow with an entry, at the highest load with 1 % overflow or less.

    ``shares``: the overflow at each load. Infinite where every load has more.
    """
    bearable = [
        load * (1 - share)
        for load, share in zip(LOADS, shares, strict=True)
        if share <= MOST_OVERFLOW
    ]
    return bytes_a_flow(spare) / max(bearable) if bearable else inf


def figures(spare: float, runs: Sequence[Sequence[float]]) -> dict[str, object]:
    """Return what the result says of one number of entries a flow."""
    columns = zip(LOADS, zip(*runs, strict=True), strict=True)
    return {
        "entries_a_flow": spare,
        "bytes_a_flow": bytes_a_flow(spare),
        "overflow": {f"{load:.0%}": figure(column).plain() for load, column in columns},
    }


def main() -> None:
    """Measure, print and save."""
    parser = result.options(__doc__, rounds=5)
    parser.add_argument("--flows", type=int, default=65536)
    parser.add_argument("--spare", type=float, nargs="+", default=[])
    chosen = parser.parse_args()
    runs = {
        spare: measure(chosen.flows, spare, chosen.rounds)
        for spare in dict.fromkeys([tables.SPARE, *chosen.spare])
    }
    for spare, shares in runs.items():
        full = figure([row[-1] for row in shares])
        print(f"{bytes_a_flow(spare):g} bytes a flow: {full.median:.3%} overflow when full")
    in_use = [bytes_a_live_flow(tables.SPARE, row) for row in runs[tables.SPARE]]
    target = at_most("flow table: bytes a live flow at 1 % overflow", 32, in_use)
    found = {"flows": chosen.flows, "spares": [figures(s, rows) for s, rows in runs.items()]}
    result.save("flow_table", chosen, found, [target])


if __name__ == "__main__":
    main()
