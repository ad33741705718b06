"""lbfwd, two reflectors and DPDK's testpmd empty rings that hold the same packets, in turn."""

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.contestants import Contestant, frozen, reflecting
from bench.drain import drain
from bench.frames import Shape
from bench.generate import Generator
from bench.node_run import Node, config, running
from bench.program import build
from bench.scenario import KNOWN_FLOWS, NEW, PACKETS, RINGS, SCENARIOS, Scenario
from bench.stage import Stage, waiting_in_softirq
from bench.testpmd import testpmd
from lbfwd.demo.lab import Lab, LabError, eventually

WARM_RATE = 200_000
SETTLE_S = 10.0

Rates = dict[Scenario, dict[str, list[float]]]  # packets a second of each contestant, by round


def fill(generators: Sequence[Generator], scenario: Scenario, turn: int) -> None:
    """Put the scenario's packets into the rings of everything that stands still."""
    flows, first = scenario.window(turn)
    for generator in generators:
        generator.send(scenario.shape, flows, PACKETS, first=first)
    eventually(lambda: waiting_in_softirq() == 0, SETTLE_S, "receive softirqs are idle")


def race(fields: Mapping[Generator, Sequence[Contestant]], rounds: int) -> Rates:
    """Measure every scenario in every round; ``fields``: whom each generator's frames reach."""
    contestants = [contestant for field in fields.values() for contestant in field]
    rates: Rates = {scenario: defaultdict(list) for scenario in SCENARIOS}
    with frozen(contestants):
        for turn in range(rounds):
            for scenario in SCENARIOS:
                fill(list(fields), scenario, turn)
                for contestant in random.sample(contestants, len(contestants)):
                    rates[scenario][contestant.name].append(drain(contestant, PACKETS))
    return rates


def flows_begun(node: Node) -> int:
    """Return how many flows lbfwd saw begin."""
    return int(node.status()["events"]["flow_new"])


def warm(node: Node, generator: Generator) -> None:
    """Make all flows known to lbfwd: the second packet of a flow confirms it."""
    packets = 2 * KNOWN_FLOWS
    generator.send(Shape(), KNOWN_FLOWS, packets, rate=WARM_RATE)
    eventually(lambda: forwarded(node) == packets, SETTLE_S, "all of the warm-up is forwarded")


def forwarded(node: Node) -> int:
    """Return the packets that lbfwd forwarded."""
    return sum(service["packets"] for service in node.status()["services"])


def compete(directory: Path, rounds: int) -> Rates:
    """Set everything up and return the rates.

    lbfwd and the reflectors share a stage. Raises LabError when lbfwd saw other flows begin than
    were meant to: then "established" would not have been.
    """
    with Lab() as lab, Lab() as second, ExitStack() as stack:
        shared, other = Stage(lab), Stage(second)
        generator = Generator(shared, directory)
        node = stack.enter_context(running(shared, directory, config(RINGS)))
        warm(node, generator)
        reflector = build("reflect", directory)
        field = [
            node.contestant(),
            stack.enter_context(reflecting(shared, reflector, "linear", RINGS)),
            stack.enter_context(reflecting(shared, reflector, "plain", RINGS)),
        ]
        dpdk = [stack.enter_context(testpmd(other, directory))]
        rates = race({generator: field, Generator(other, directory): dpdk}, rounds)
        expected = KNOWN_FLOWS + rounds * PACKETS * SCENARIOS.count(NEW)
        if flows_begun(node) != expected:
            raise LabError(f"lbfwd saw {flows_begun(node)} flows begin, {expected} were meant to")
        return rates
