"""The picture of the benchmark "latency": what is added at each load, by ring and forwarder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

COLOURS = {"lbfwd": "#1b6ca8", "reflector": "#8fb8d6"}
MARKERS = {"p99": "^", "p99.9": "x"}


def draw(figures: Mapping[str, Any], path: Path) -> None:
    """Write the picture (PNG)."""
    mpl.use("Agg")
    loads = sorted({cell["load"] for cell in figures["cells"]})
    drawing, panels = plt.subplots(
        1, len(loads), figsize=(11, 4.8), sharey=True, layout="constrained"
    )
    for axes, load in zip(panels, loads, strict=True):
        draw_load(axes, [cell for cell in figures["cells"] if cell["load"] == load])
        axes.set_title(f"at {100 * load:g} % load")
    panels[0].set_ylabel("added to the way, µs")
    panels[0].legend(loc="upper right", frameon=False, fontsize="small", ncols=2)
    panels[0].set_ylim(1, panels[0].get_ylim()[1] * 6)
    rate = figures["sustained_packets_a_second"]
    drawing.suptitle(
        f"Added latency: bars p50, marks p99 and p99.9 (medians of the rounds); 100 % = {rate:,} "
        "packets a second"
    )
    drawing.savefig(path, dpi=110)
    plt.close(drawing)


def draw_load(axes: Axes, cells: list[dict[str, Any]]) -> None:
    """Draw one load: two bars a setting."""
    rings = list(dict.fromkeys(cell["ring"] for cell in cells))
    width = 0.8 / len(COLOURS)
    for number, (name, colour) in enumerate(COLOURS.items()):
        own = [cell["added_ms"] for cell in cells if cell["forwarder"] == name]
        places = [place + (number - 0.5) * width for place in range(len(rings))]
        axes.bar(places, [micros(ms["p50"]) for ms in own], width, color=colour, label=name)
        for quantile, marker in MARKERS.items():
            heights = [micros(ms[quantile]) for ms in own]
            label = quantile if number else None
            axes.scatter(places, heights, 28, "#333333", marker=marker, label=label)
    axes.set_yscale("log")
    axes.set_xticks(range(len(rings)), [ring.replace(", ", "\n") for ring in rings])
    axes.spines[["top", "right"]].set_visible(False)


def micros(figure: Mapping[str, float]) -> float:
    """Return a figure's median, given in milliseconds, in microseconds."""
    return 1000 * figure["median"]
