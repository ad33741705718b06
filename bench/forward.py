"""How fast a core forwards, beside the limit of its rings: ``python -m bench.forward``.

lbfwd, the reflector (lbfwd's rings without any decision), the plain reflector (without the linear
buffers) and DPDK's testpmd empty rings that were filled with the same packets while they stood
still (bench/drain.py says why). Then two workers beside one, and the highest rate without loss.
"""

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench import result
from bench.forward_picture import draw
from bench.loss import search_all
from bench.measure import figure, paired
from bench.race import Rates, compete
from bench.scaling import scaling
from bench.scenario import MANY, MOST, PACKETS
from bench.stage import OTHER_CPU
from bench.target import Target, at_least

ROUNDS = 9
TMPFS = Path("/dev/shm")  # where /run is none, lbfwd's shared files would be written to a disk


def targets(rates: Rates, workers: Mapping[str, Sequence[float]]) -> list[Target]:
    """Return what issue 4 wants of this benchmark, by round."""
    many, most = rates[MANY], rates[MOST]
    bounds = {"linear reflector": 0.95, "testpmd io": 1.4, "plain reflector": 1.3}
    return [
        *(
            at_least(f"{MANY.name}: lbfwd / {name}", bound, paired(many["lbfwd"], many[name]))
            for name, bound in bounds.items()
        ),
        at_least(
            f"{MOST.name}: lbfwd / linear reflector",
            0.90,
            paired(most["lbfwd"], most["linear reflector"]),
        ),
        at_least("two workers / one", 1.8, paired(workers["two workers"], workers["one worker"])),
    ]


def figures(
    rates: Rates, workers: Mapping[str, Sequence[float]], lossless: Mapping[str, int]
) -> dict[str, object]:
    """Return everything measured, for JSON: packets a second, a value a round."""
    return {
        "packets_in_a_ring": PACKETS,
        "packets_a_second": {scenario.name: dict(by) for scenario, by in rates.items()},
        "workers": dict(workers),
        "at_most_0.1_percent_lost": dict(lossless),
    }


def table(rates: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Return the rates as text: median and interval, and lbfwd's paired ratio to each."""
    lines = []
    for scenario, by in rates.items():
        lines.append(f"{scenario:<28} {'1000 packets/s':<24} lbfwd / it")
        for name, values in sorted(by.items()):
            rate = figure([value / 1000 for value in values])
            ratio = figure(paired(by["lbfwd"], values)) if name != "lbfwd" else ""
            lines.append(f"  {name:<26} {rate!s:<24} {ratio}")
    return "\n".join(lines)


def main() -> None:
    """Measure, draw and print."""
    chosen = result.options(__doc__, ROUNDS).parse_args()
    os.sched_setaffinity(0, {OTHER_CPU})
    with tempfile.TemporaryDirectory(dir=TMPFS if TMPFS.is_dir() else None) as place:
        rates = compete(Path(place), chosen.rounds)
        workers = scaling(Path(place), chosen.rounds)
        lossless = search_all(Path(place))
    saved = figures(rates, workers, lossless)
    result.save("forward", chosen, saved, targets(rates, workers))
    draw(rates, chosen.out / "forward.png")
    print(table({scenario.name: by for scenario, by in rates.items()}))
    for name, values in workers.items():
        print(f"  {name:<26} {figure([value / 1000 for value in values])}")
    for name, rate in lossless.items():
        print(f"  at most 0.1 % lost: {name:<18} {rate / 1000:.0f}")


if __name__ == "__main__":
    main()
