"""The highest rate at which at most 0.1 % of the frames is lost, by binary search.

In the manner of RFC 2544, section 26.1, with trials of a second; so rings are small here, or they
would hold a whole trial. For information: on two cores the generator's own rate and the receive
softirqs bound it, not the forwarder (bench/drain.py).
"""

import time
from collections.abc import Callable
from pathlib import Path

from bench.contestants import Contestant, reflecting
from bench.generate import Generator, Report
from bench.node_run import config, running
from bench.program import build
from bench.rings import Rings
from bench.scenario import MANY
from bench.stage import Stage
from bench.testpmd import testpmd
from lbfwd.demo.lab import Lab

ALLOWED = 0.001
STEPS = 5
TRIAL_S = 1.0
QUIET_S = 0.05  # nothing left for so long: nothing more will
RINGS = Rings(rx_ring_mib=16)
WARM_UP = 2 * MANY.flows


def highest(loss: Callable[[int], float], most: int, steps: int = STEPS) -> int:
    """Return the highest rate found whose loss is allowed, frames a second.

    ``loss``: the share lost at a rate. ``most``: where the search begins; 0: none was found.
    """
    low, high = 0, most
    rate = most
    for _ in range(steps):
        if loss(rate) <= ALLOWED:
            low = rate
        else:
            high = rate
        if low == most:
            break
        rate = (low + high) // 2
    return low


def search(generator: Generator, contestant: Contestant) -> int:
    """Return the contestant's rate. The generator at its own full rate is where it begins."""
    sent = contestant.sent
    contestant.prefer()

    def trial(rate: int, count: int) -> tuple[Report, float]:
        before = sent.packets()
        report = generator.send(MANY.shape, MANY.flows, count, rate=rate)
        last = -1
        while last != (last := sent.packets()):
            time.sleep(QUIET_S)
        return report, 1 - (last - before) / report.sent

    trial(WARM_UP, WARM_UP)
    full, _ = trial(0, 10 * WARM_UP)
    return highest(lambda rate: trial(rate, int(rate * TRIAL_S))[1], int(full.rate))


def search_all(directory: Path) -> dict[str, int]:
    """Return the rate of lbfwd, the reflector and testpmd, each alone on a stage."""
    rates = {}
    with Lab() as lab:
        stage = Stage(lab)
        generator = Generator(stage, directory)
        with running(stage, directory, config(RINGS)) as node:
            rates["lbfwd"] = search(generator, node.contestant())
        stage.guard()
        with reflecting(stage, build("reflect", directory), "linear", RINGS) as reflector:
            rates[reflector.name] = search(generator, reflector)
        with testpmd(stage, directory) as dpdk:
            rates[dpdk.name] = search(generator, dpdk)
    return rates
