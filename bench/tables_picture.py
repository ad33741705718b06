"""Figures 11 and 12 of the Maglev paper (NSDI 2016, section 5.3), from our tables."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

COLOURS = {"Maglev": "#1b6ca8", "Karger": "#e0a458", "rendezvous": "#8a8a8a"}
# By how many percent backends must be overprovisioned: the paper's text. It calls Maglev's balance
# almost perfect, without a number.
PUBLISHED = {
    "65537": {"Karger": 29.7, "rendezvous": 49.5},
    "655373": {"Karger": 10.3, "rendezvous": 12.3},
}
SIZE_COLOURS = {"65537": "#1b6ca8", "655373": "#e0a458"}


def draw_imbalance(sizes: Mapping[str, Any], path: Path) -> None:
    """Draw figure 11: least and greatest share of 1,000 backends by method and table size."""
    mpl.use("Agg")
    drawing, panels = plt.subplots(
        1, len(sizes), figsize=(10, 5), sharey=True, layout="constrained"
    )
    for axes, (size, methods) in zip(panels, sizes.items(), strict=True):
        for place, (method, share) in enumerate(methods.items()):
            draw_share(axes, place, method, share)
            published = PUBLISHED[size].get(method)
            if published is not None:
                axes.bar(place + 0.22, published, 0.36, fill=False, edgecolor="#c0392b")
                text = f"+{published} %"
                axes.text(place + 0.22, published + 1, text, ha="center", color="#c0392b")
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set_xticks(range(len(methods)), methods)
        axes.set_title(f"M = {int(size):,}")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("share of a backend, percent off the average")
    panels[0].set_ylim(-50, 60)
    drawing.suptitle(
        "Figure 11: least to most loaded of 1,000 backends; red: the paper's most loaded"
    )
    drawing.savefig(path, dpi=110)
    plt.close(drawing)


def draw_share(axes: Axes, place: int, method: str, share: Mapping[str, float]) -> None:
    """Draw our bar of a method, from the least to the greatest share."""
    left, least, most = place - 0.22, share["least"], share["most"]
    axes.bar(left, most - least, 0.36, bottom=least, color=COLOURS[method])
    axes.text(left, most + 1, f"{most:+.1f} %", ha="center")
    axes.text(left, least - 1, f"{least:+.1f} %", ha="center", va="top")


def draw_failures(sizes: Mapping[str, Any], path: Path) -> None:
    """Draw figure 12: changed entries by failed backends, and the part of those that stay."""
    mpl.use("Agg")
    drawing, axes = plt.subplots(figsize=(8, 4.8), layout="constrained")
    for size, found in sizes.items():
        colour, name = SIZE_COLOURS[size], f"M = {int(size):,}"
        axes.plot(found["failed"], found["changed"], "o-", color=colour, label=f"{name}: all")
        label = f"{name}: of backends that did not fail"
        axes.plot(found["failed"], found["beyond"], "o--", color=colour, label=label)
    failed = next(iter(sizes.values()))["failed"]
    axes.plot(failed, failed, ":", color="black", label="least possible: the failed ones' own")
    axes.set_xlabel("failed at the same time, percent of 1,000 backends")
    axes.set_ylabel("changed entries, percent of the table")
    axes.set_title("Figure 12: what changes when backends fail (averages of 200 draws)")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    drawing.savefig(path, dpi=110)
    plt.close(drawing)
