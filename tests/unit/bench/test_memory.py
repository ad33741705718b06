"""What counts as a worker's own memory, and as a flow's."""

from math import inf
from pathlib import Path

import pytest

from bench.flow_table import bytes_a_live_flow
from bench.memory import beside, sizes

RUNTIME = Path("/run/lbfwd")
SMAPS = """\
00400000-00452000 r-xp 00000000 08:02 173521     /usr/bin/python3.11
Size:                328 kB
Rss:                 200 kB
Pss:                 100 kB
Private_Dirty:         0 kB
VmFlags: rd ex mr mw me
7f0000000000-7f0004000000 rw-s 00000000 00:08 4242   socket:[4242]
Rss:               65536 kB
Pss:               65536 kB
Private_Dirty:         0 kB
7f1000000000-7f1001800000 rw-s 00000000 00:19 77 /run/lbfwd/flows
Rss:               24576 kB
Pss:               24576 kB
Private_Dirty:         0 kB
7f2000000000-7f2000100000 rw-p 00000000 00:00 0
Rss:                1024 kB
Pss:                1024 kB
Private_Dirty:      1024 kB
7f3000000000-7f3000100000 rw-p 00000000 00:00 0
Rss:                 824 kB
Pss:                 824 kB
Private_Dirty:       800 kB
"""


@pytest.mark.parametrize(("kind", "mib"), [("Rss", 2.0), ("Private_Dirty", 1824 / 1024)])
def test_rings_and_tables_are_left_out(kind: str, mib: float) -> None:
    assert beside(sizes(SMAPS)[kind], RUNTIME) == mib


def test_files_of_another_node_are_not() -> None:
    assert beside(sizes(SMAPS)["Rss"], Path("/run/other")) == 26.0


def test_bytes_of_a_live_flow_are_those_at_the_highest_load_that_holds() -> None:
    # 1.5 entries of 16 bytes a flow: 24 bytes; full, 99.5 % of the flows have one
    assert bytes_a_live_flow(1.5, [0.0, 0.001, 0.005]) == pytest.approx(24 / 0.995)
    assert bytes_a_live_flow(1.5, [0.0, 0.01, 0.02]) == pytest.approx(24 / (0.9 * 0.99))
    assert bytes_a_live_flow(1.5, [0.02, 0.1, 0.2]) == inf
