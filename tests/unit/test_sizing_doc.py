"""docs/sizing.md: its arithmetic, done again with the code's own constants."""

import re
from pathlib import Path

import pytest

from lbfwd import ring, shared
from lbfwd.config import values
from lbfwd.config.model import Workers
from lbfwd.config.warn_health import MOST_PROBES_S
from lbfwd.tables import SPARE

TEXT = re.sub(r"\s+", " ", (Path(__file__).parents[2] / "docs" / "sizing.md").read_text()).replace(
    "\N{MULTIPLICATION SIGN}", "x"
)
UNIT = (Path(__file__).parents[2] / "deploy" / "lbfwd.service").read_text()
WORKERS = Workers(cpus=(0, 1, 2, 3))
INTERFACES = 2
MIB = 1 << 20
RX = ring.rx_geometry("v3", WORKERS.rx_ring_mib, WORKERS.rx_block_kib, WORKERS.rx_retire_ms)
TX = ring.tx_geometry(WORKERS.tx_ring_frames, 1500)
FLOW_BYTES = int(SPARE * shared.BUCKET_BYTES / shared.FLOW_WAYS)
COUNT = len(WORKERS.cpus)


def mib(count: float) -> str:
    return f"{count / MIB:g} MiB"


@pytest.mark.parametrize(
    "said",
    [
        f"= {10**10 // 8 // (1500 + 38):,} |",
        f"= {10**10 // 8 // (64 + 20):,} |",
        f"64 MiB ÷ 128 KiB = {RX.blocks} |",
        f"512 x 1 ms = {RX.blocks * RX.retire_ms} ms |",
        f"= {RX.block_bytes * RX.blocks // 2048:,} packets",
        f"4 x 2 x 64 MiB = {mib(COUNT * INTERFACES * RX.block_bytes * RX.blocks)} |",
        f"4 x 2 x 4,096 x {TX.frame_bytes // 1024} KiB ="
        f" {mib(COUNT * INTERFACES * TX.block_bytes * TX.blocks)} |",
        f"4 x 1,048,576 x {FLOW_BYTES} = {mib(COUNT * WORKERS.flows * FLOW_BYTES)} |",
        f"workers x `flows` x {FLOW_BYTES} bytes |",
        f"workers x {mib(shared.COUNTERS_BYTES)} | 4 x {mib(shared.COUNTERS_BYTES)} ="
        f" {mib(COUNT * shared.COUNTERS_BYTES)} |",
        f"65,537 x 2 = {values.DEFAULT_TABLE_SIZE * 2 // 1024} KiB a pool",
        f"2 KiB up to an MTU of 1,500, {ring.tx_geometry(256, 9000).frame_bytes // 1024} KiB with",
        f"10,000 x 120 s = {10_000 * 120:,} flows",
        f"(2 receiving + 2 sending) = {COUNT * 2 * INTERFACES} |",
        f"`LimitNOFILE` = {int(re.findall('LimitNOFILE=([0-9]+)', UNIT)[0]):,} |",
        f"| workers | {values.MAX_WORKERS} |",
        f"| receiving interfaces | {values.MAX_INTERFACES} |",
        f"| output interfaces | {ring.MAX_TX} |",
        f"| services | {values.MAX_SERVICES:,} |",
        f"| {values.MAX_MEMBERS:,}, {values.MAX_BACKENDS:,} |",
        f"| {values.MAX_TABLE_SIZE:,} |",
        f"| flows a worker | {2**27:,} |",
        f"| {MOST_PROBES_S:,} (",
        f"65,537 are enough for {values.DEFAULT_TABLE_SIZE // 100} backends, 655,373 for"
        f" {655_373 // 100:,}.",
    ],
)
def test_the_arithmetic_is_that_of_the_code(said: str) -> None:
    assert said in TEXT
