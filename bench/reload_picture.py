"""The picture of the benchmark "reload": how long changes take, and what the traffic meets."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter

COLOURS = {"without": "#c9c9c9", "during": "#1b6ca8"}
SHARES = ("p50", "p99", "p99.9", "max")


def draw(cases: Mapping[str, Any], path: Path) -> None:
    """Write the picture (PNG)."""
    mpl.use("Agg")
    drawing, (times, *gaps) = plt.subplots(
        1,
        1 + len(cases),
        figsize=(16, 4.6),
        width_ratios=[4, *[1] * len(cases)],
        layout="constrained",
    )
    draw_times(times, cases)
    longest = max(case[when]["gaps_ms"]["max"] for case in cases.values() for when in COLOURS)
    for axes, (name, case) in zip(gaps, cases.items(), strict=True):
        draw_gaps(axes, case)
        axes.set_title(f"{name}: gaps\nbetween bursts", fontsize="medium")
        axes.set_ylim(0.5, 1.5 * longest)
    gaps[0].set_ylabel("ms")
    gaps[0].legend(["without reload", "during reloads"], frameon=False, fontsize="small")
    drawing.savefig(path, dpi=110)
    plt.close(drawing)


def draw_times(axes: Axes, cases: Mapping[str, Any]) -> None:
    """Draw a bar a kind of change: the median time until it is in service, up to the longest."""
    bars = [
        (f"{case_name}: {name}".replace(" ", "\n"), change["in_service_ms"], case["target_ms"])
        for case_name, case in cases.items()
        for name, change in case["changes"].items()
    ]
    for place, (_, ms, target) in enumerate(bars):
        reach = [[0], [ms["max"] - ms["p50"]]]
        axes.bar(place, ms["p50"], 0.7, yerr=reach, color=COLOURS["during"], capsize=3)
        axes.text(place, 1.2, f"{ms['p50']:,.0f}", ha="center", color="white", fontsize="small")
        axes.hlines(target, place - 0.45, place + 0.45, colors="#c0392b")
    scale(axes)
    axes.set_ylim(bottom=1)
    axes.set_ylabel("ms")
    axes.set_xticks(range(len(bars)), [label for label, *_ in bars], fontsize="small")
    axes.set_title("until every worker uses it: median, longest; red: target", fontsize="medium")


def draw_gaps(axes: Axes, case: Mapping[str, Any]) -> None:
    """Draw the quantiles without and during reloads."""
    for number, (when, colour) in enumerate(COLOURS.items()):
        places = [place + (number - 0.5) * 0.4 for place in range(len(SHARES))]
        axes.bar(places, [case[when]["gaps_ms"][share] for share in SHARES], 0.4, color=colour)
    scale(axes)
    axes.set_xticks(range(len(SHARES)), SHARES)


def scale(axes: Axes) -> None:
    """Make the vertical axis logarithmic, with plain numbers."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.spines[["top", "right"]].set_visible(False)
