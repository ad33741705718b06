"""What the benchmark "forward" does besides measuring."""

from typing import Any

import pytest

from bench.forward import figures, table, targets
from bench.loss import highest
from bench.node_run import config as toml
from bench.race import Rates
from bench.rings import Rings
from bench.scenario import KNOWN_FLOWS, MANY, MOST, NEW, PACKETS, SCENARIOS, Scenario
from bench.stage import BACKENDS, tx_packets
from lbfwd import config

DEV = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo
    lo:       0       0    0    0    0     0          0         0        0       0    0    0    0
    n1:     516       6    1    2    3     4          5         7 12345678   90001    0    0    0
   n10:     516       6    1    2    3     4          5         7 12345678   70001    0    0    0
"""


def flows(scenario: Scenario, turn: int) -> range:
    count, first = scenario.window(turn)
    return range(first, first + count)


def test_known_flows_are_among_those_that_were_made_known() -> None:
    for turn in range(40):
        assert 0 <= flows(MOST, turn).start < flows(MOST, turn).stop <= KNOWN_FLOWS
        assert flows(MANY, turn) == range(10_000)


def test_of_many_flows_others_come_each_time() -> None:
    turns = KNOWN_FLOWS // PACKETS
    assert len({flow for turn in range(turns) for flow in flows(MOST, turn)}) == turns * PACKETS


def test_new_flows_are_new() -> None:
    assert flows(NEW, 0).start == KNOWN_FLOWS
    for turn in range(5):
        assert flows(NEW, turn).stop == flows(NEW, turn + 1).start


@pytest.mark.parametrize(
    ("limit", "found"), [(1000, 1000), (999, 937), (700, 687), (62, 62), (0, 0)]
)
def test_the_search_ends_below_the_limit(limit: int, found: int) -> None:
    # Four halvings of 1000: 500, 750 or 250, … ; 0.1 % lost is still allowed.
    asked = []

    def loss(rate: int) -> float:
        asked.append(rate)
        return 0.001 if rate <= limit else 0.0011

    assert highest(loss, 1000, steps=5) == found
    assert asked[0] == 1000
    assert len(asked) <= 5


def test_an_interface_that_others_begin_like_is_found() -> None:
    assert tx_packets(DEV, "n1") == 90001
    assert tx_packets(DEV, "n10") == 70001
    with pytest.raises(ValueError, match="no interface n2"):
        tx_packets(DEV, "n2")


def test_the_node_s_configuration_is_one() -> None:
    rings = Rings("v2", rx_ring_mib=8, busy_poll_us=50)
    parsed = config.parse(toml(rings, cpus=(0,), flows=4096), "bench", hash_key=None)
    assert parsed.workers.ring == "v2"
    assert (parsed.workers.rx_ring_mib, parsed.workers.busy_poll_us) == (8, 50)
    assert parsed.workers.flows == 4096
    assert len(parsed.pools[0].backends) == len(BACKENDS)


def test_ring_settings_survive_a_command_line() -> None:
    rings = Rings("v2", qdisc_bypass=True)
    assert Rings.parse(rings.text()) == rings


@pytest.fixture
def rates() -> Rates:
    """lbfwd at 0.96 of the reflector, 1.5 times testpmd, 1.2 times the plain reflector."""
    by = {"lbfwd": 96.0, "linear reflector": 100.0, "testpmd io": 64.0, "plain reflector": 80.0}
    return {s: {name: [rate, 2 * rate] for name, rate in by.items()} for s in SCENARIOS}


def test_targets_are_ratios_of_the_same_round(rates: Rates) -> None:
    rates[MOST]["lbfwd"] = [80.0, 160.0]
    found = targets(rates, {"one worker": [50.0, 60.0], "two workers": [100.0, 120.0]})
    values = {target.name: target.values for target in found}
    assert list(values.values()) == [
        (0.96, 0.96),
        (1.5, 1.5),
        pytest.approx((1.2, 1.2)),
        (0.8, 0.8),
        (2.0, 2.0),
    ]
    assert [target.reached for target in found] == [True, True, False, False, True]


def test_the_table_shows_every_scenario_and_contestant(rates: Rates) -> None:
    text = table({scenario.name: by for scenario, by in rates.items()})
    for scenario in SCENARIOS:
        assert scenario.name in text
    assert text.count("testpmd io") == len(SCENARIOS)


def test_figures_keep_every_round(rates: Rates) -> None:
    kept = figures(rates, {"one worker": [1.0]}, {"lbfwd": 5})
    by: Any = kept["packets_a_second"]
    assert by["64 bytes, new flows"]["lbfwd"] == [96.0, 192.0]
