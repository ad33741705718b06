"""What the benchmark "latency" makes of streams."""

import pytest

from bench.latency import added, cells, targets
from bench.latency_race import LOADS, SETTINGS, Delays
from bench.stream import Stream

US = 1_000
PAST = [Stream([0] * 3, [4 * US, 5 * US, 9 * US]), Stream([0] * 3, [6 * US, 7 * US, 8 * US])]


def constant(delay_us: int) -> Stream:
    return Stream([0] * 10, [delay_us * US] * 10)


def delays(**us: int) -> Delays:
    """Every cell as the named one of its ring and forwarder, else 100 microseconds."""
    return {
        (setting, name, load): [constant(us.get(f"{setting}_{name}", 100)) for _ in PAST]
        for setting in SETTINGS
        for name in ("lbfwd", "reflector")
        for load in LOADS
    }


def test_the_way_past_the_node_is_taken_off_round_by_round() -> None:
    ms = added(delays(), PAST)
    for values in ms.values():
        assert values["p50"] == pytest.approx([0.095, 0.093])
        assert values["p99.9"] == pytest.approx([0.095, 0.093])


def test_targets_compare_what_is_added() -> None:
    ms = added(delays(v2_lbfwd=35, v2_reflector=25, v3_lbfwd=1905), PAST)
    ratio, tail = targets(ms)
    assert ratio.values == pytest.approx([30 / 20, 28 / 18])
    assert ratio.missed
    assert tail.values == pytest.approx([1.9, 1.898])
    assert tail.reached  # 1 ms of retire time, and one


def test_lost_probes_are_told() -> None:
    found = delays()
    found["v3", "lbfwd", LOADS[0]][0] = Stream([0] * 4, [100 * US, 0, 100 * US, 0])
    rows = {
        (row["ring"], row["forwarder"], row["load"]): (row["probes"], row["lost"])
        for row in cells(added(found, PAST), found)
    }
    assert rows["v3", "lbfwd", LOADS[0]] == (14, 2)
    assert rows["v2", "lbfwd", LOADS[0]] == (20, 0)
