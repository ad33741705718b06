"""The picture of the benchmark "forward": a bar a contestant, medians with their intervals."""

from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt

from bench.measure import figure
from bench.race import Rates

COLOURS = {
    "lbfwd": "#1b6ca8",
    "linear reflector": "#8fb8d6",
    "plain reflector": "#c9c9c9",
    "testpmd io": "#e0a458",
}


def draw(rates: Rates, path: Path) -> None:
    """Write the picture (PNG)."""
    mpl.use("Agg")
    drawing, axes = plt.subplots(figsize=(10, 4.8), layout="constrained")
    width = 0.8 / len(COLOURS)
    for number, (name, colour) in enumerate(COLOURS.items()):
        found = [figure([value / 1000 for value in by[name]]) for by in rates.values()]
        places = [place + (number - (len(COLOURS) - 1) / 2) * width for place in range(len(found))]
        heights = [one.median for one in found]
        reach = [[one.median - one.low for one in found], [one.high - one.median for one in found]]
        axes.bar(places, heights, width, yerr=reach, label=name, color=colour, capsize=2)
    axes.set_xticks(range(len(rates)), [scenario.name.replace(", ", "\n") for scenario in rates])
    axes.set_ylabel("1000 packets a second, one core")
    axes.set_title("One worker empties a full ring: median and interval of the rounds")
    axes.legend(ncols=len(COLOURS), loc="upper right", frameon=False)
    axes.set_ylim(top=axes.get_ylim()[1] * 1.12)
    axes.spines[["top", "right"]].set_visible(False)
    drawing.savefig(path, dpi=110)
    plt.close(drawing)
