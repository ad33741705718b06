"""What the node adds to a round trip: ``python -m bench.latency``.

Answers do not pass the node (direct server return), so what it adds to a round trip is what it
adds to the way there. Probes go from the generator's side through the node to the sink; measured
is the time from before the send call until the frame enters the sink's interface (the kernel's
receive timestamp, on the same clock). The same over a cable from generator to sink, past the node,
is taken off: "added" is a quantile through the node less the median past it.

Loads are shares of the rate that a node sustains on this stage (bench/loss.py). The forwarder has
one core, under SCHED_FIFO as if it were isolated; probes and generator have the other one, the
probes before the generator.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench import result
from bench.latency_picture import draw
from bench.latency_race import (
    BUSY_POLL_US,
    LIMIT,
    LOADS,
    OURS,
    PROBE_RATE,
    SETTINGS,
    Delays,
    compete,
    lined_up,
    sustained,
)
from bench.measure import figure, paired
from bench.stream import QUANTILES, Stream, quantile
from bench.target import Target, at_most

SHARES = {name: share for name, share in QUANTILES.items() if name != "max"}
MEMORY = Path("/dev/shm")

Added = dict[tuple[str, str, float], dict[str, list[float]]]
"""Milliseconds by setting, contestant and load, and by quantile: a value a round."""


def added(delays: Delays, direct: Sequence[Stream]) -> Added:
    """Return what each contestant adds: quantiles, less the median past it in the same round."""
    past = [quantile(stream.delays_ms(), 0.5) for stream in direct]
    found: Added = {}
    for key, streams in delays.items():
        ordered = [stream.delays_ms() for stream in streams]
        found[key] = {
            name: [quantile(ms, share) - base for ms, base in zip(ordered, past, strict=True)]
            for name, share in SHARES.items()
        }
    return found


def targets(ms: Added) -> list[Target]:
    """Return what issue 4 wants of the latency."""
    least = LOADS[0]
    ours, limit = (ms["v2", name, least]["p50"] for name in (OURS, LIMIT))
    within = SETTINGS["v3"].rx_retire_ms + 1
    return [
        at_most("latency, v2 at 1 %: added p50, lbfwd / reflector", 1.2, paired(ours, limit)),
        at_most("latency, v3 at 1 %: added p99, ms", within, ms["v3", OURS, least]["p99"]),
    ]


def cells(ms: Added, delays: Delays) -> list[dict[str, object]]:
    """Return a row for JSON, picture and table a setting, contestant and load."""
    return [
        {
            "ring": setting,
            "forwarder": name,
            "load": load,
            "probes": sum(len(stream.sent) for stream in delays[setting, name, load]),
            "lost": sum(stream.lost for stream in delays[setting, name, load]),
            "added_ms": {quantile_name: figure(v).plain() for quantile_name, v in values.items()},
        }
        for (setting, name, load), values in ms.items()
    ]


def show(ms: Added, delays: Delays) -> None:
    """Print the medians of the rounds, in microseconds."""
    print(f"{'':<32}" + "".join(f"{f'{load:.0%} load':>30}" for load in LOADS))
    print(f"{'added, µs':<32}" + "".join(f"{name:>10}" for name in SHARES) * len(LOADS))
    for setting in SETTINGS:
        for name in (OURS, LIMIT):
            medians = [
                f"{1000 * figure(values).median:>10.1f}"
                for load in LOADS
                for values in ms[setting, name, load].values()
            ]
            lost = sum(s.lost for load in LOADS for s in delays[setting, name, load])
            print(f"{setting + ', ' + name:<32}" + "".join(medians) + f"  lost {lost}")


def main() -> None:
    """Measure, print, draw and save."""
    chosen = result.options(__doc__, rounds=5).parse_args()
    with tempfile.TemporaryDirectory(dir=MEMORY) as place:
        directory = Path(place)
        rate = sustained(directory)
        with lined_up(directory) as race:
            delays, direct = compete(race, rate, chosen.rounds)
    ms = added(delays, direct)
    print(f"sustained on this stage: {rate} packets a second")
    show(ms, delays)
    past = figure([quantile(stream.delays_ms(), 0.5) for stream in direct])
    figures: Mapping[str, object] = {
        "sustained_packets_a_second": rate,
        "probes_a_second_beside_traffic": PROBE_RATE,
        "busy_poll_us": BUSY_POLL_US,
        "past_the_node_p50_ms": past.plain(),
        "cells": cells(ms, delays),
    }
    result.save("latency", chosen, figures, targets(ms))
    draw(figures, chosen.out / "latency.png")


if __name__ == "__main__":
    main()
