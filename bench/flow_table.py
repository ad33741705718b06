"""How full the flow table can be: ``python bench/flow_table.py [--flows N] [--spare S …]``.

Live confirmed flows are sent through the packet path until 50, 90 and 100 % of ``flows`` are there;
then the entries in the table are counted. A flow that has none overflowed: it is served by the
Maglev table alone. Prints JSON: for each number of entries a flow (``SPARE`` in lbfwd/tables.py is
the one in use) the bytes a flow and the share of flows that overflowed, median and extremes over
the seeds.
"""

import argparse
import json
import mmap
import random
import statistics
import sys
import tempfile
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.machine import machine
from bench.node import forwarding, segment
from lbfwd import tables
from lbfwd.ring import Worker, tx_geometry
from lbfwd.shared import BUCKET_BYTES, FLOW_WAYS, FLOWS_HEADER
from lbfwd.tables import Tables

LOADS = (0.5, 0.9, 1.0)
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


def measure(flows: int, spare: float, seeds: int) -> dict[str, object]:
    """Return the figures for one number of entries a flow."""
    with tempfile.TemporaryDirectory() as place, mock.patch.object(tables, "SPARE", spare):
        runs = [overflow(Path(place), flows, seed) for seed in range(seeds)]
    return {
        "entries_a_flow": spare,
        "bytes_a_flow": round(spare * BUCKET_BYTES / FLOW_WAYS, 1),
        "overflow": {
            f"{load:.0%}": {
                "median": statistics.median(column),
                "least": min(column),
                "most": max(column),
            }
            for load, column in zip(LOADS, zip(*runs, strict=True), strict=True)
        },
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flows", type=int, default=65536)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--spare", type=float, nargs="+", default=[tables.SPARE])
    chosen = parser.parse_args()
    figures = [measure(chosen.flows, spare, chosen.seeds) for spare in chosen.spare]
    result = {"machine": machine(), "flows": chosen.flows, "seeds": chosen.seeds}
    print(json.dumps(result | {"figures": figures}, indent=2))


if __name__ == "__main__":
    main()
