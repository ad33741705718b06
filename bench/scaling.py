"""What a second worker adds: each empties its own ring, first alone, then both at once.

They send over the same interface, each on a core of its own. Somebody has to look on from one of
the cores: what that takes is not counted (bench/drain.py, busy_ns).
"""

import statistics
from dataclasses import replace
from pathlib import Path

from bench.contestants import frozen
from bench.drain import drain
from bench.generate import Generator
from bench.node_run import Node, config, running
from bench.race import SETTLE_S, WARM_RATE, forwarded
from bench.scenario import MANY, PACKETS, RINGS
from bench.stage import FORWARD_CPU, OTHER_CPU, Stage
from lbfwd.demo.lab import Lab, eventually

BOTH_PACKETS = 2 * PACKETS  # over the two rings


def shares(node: Node, generator: Generator) -> list[int]:
    """Return how many of the packets each worker gets: always the same, by the flows' hash."""
    before = [worker["frames"] for worker in node.status()["workers"]]
    generator.send(MANY.shape, MANY.flows, BOTH_PACKETS, rate=WARM_RATE)
    eventually(lambda: forwarded(node) == BOTH_PACKETS, SETTLE_S, "the warm-up is forwarded")
    after = [worker["frames"] for worker in node.status()["workers"]]
    return [a - b for a, b in zip(after, before, strict=True)]


def scaling(directory: Path, rounds: int) -> dict[str, list[float]]:
    """Return packets a second of one worker (mean of the two alone) and of both, by round."""
    rates: dict[str, list[float]] = {"one worker": [], "two workers": []}
    with Lab() as lab:
        stage = Stage(lab)
        generator = Generator(stage, directory)
        text = config(RINGS, cpus=(FORWARD_CPU, OTHER_CPU))
        with running(stage, directory, text) as node:
            packets = shares(node, generator)
            both = node.contestant("two workers")
            each = [replace(both, forwarders=(thread,)) for thread in both.forwarders]
            with frozen([both]):
                for _ in range(rounds):
                    generator.send(MANY.shape, MANY.flows, BOTH_PACKETS)
                    alone = [drain(one, n) for one, n in zip(each, packets, strict=True)]
                    rates["one worker"].append(statistics.mean(alone))
                    generator.send(MANY.shape, MANY.flows, BOTH_PACKETS)
                    rates["two workers"].append(drain(both, BOTH_PACKETS))
    return rates
