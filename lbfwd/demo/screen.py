"""What the demo shows: a live table on a terminal, plain lines elsewhere."""

import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lbfwd.demo.checks import Check
from lbfwd.demo.client import URLS
from lbfwd.demo.tally import Phase, Tally
from lbfwd.demo.topology import PICTURE, PLACES

HINTS = """
  It stays up until Ctrl-C. A shell inside, from another terminal:

    {enter}

  and there:

    {lbfwd} status                               what it does and counts
    ip netns exec client curl {v4}         who answers?
    ip netns exec client curl '{v6}'    … and over IPv6
    ip netns exec node tcpdump -ni eth0        requests in, GRE out
    ip netns exec a tcpdump -ni eth0           GRE in, answers out
    ip netns exec node nft list ruleset        the guard behind the rings
"""
BAR = 16
NAME_WIDTH = 33
PLAIN_WIDTH = 120  # of a file or pipe
REFRESHES_PER_S = 8


class Screen:
    """Prints to stdout."""

    def __init__(self) -> None:
        """Nothing printed yet."""
        self._console = Console(highlight=False)
        if not self._console.is_terminal:
            self._console = Console(highlight=False, width=PLAIN_WIDTH)

    def intro(self, way: str, workers: int) -> None:
        """Say what this is going to be."""
        self._console.print(Text(PICTURE, style="cyan"), "", sep="\n")
        self._console.print(f"Network namespaces of our own ({way}). Nothing outside is touched.\n")
        if workers == 1:
            self.step("This machine offers one core only: lbfwd gets one worker instead of two")

    def step(self, text: str) -> None:
        """Say what happens now."""
        self._console.print(f"[bold green]▸[/] {text}")

    def error(self, text: str) -> None:
        """Say what went wrong."""
        self._console.print(Text(f"lbfwd demo: {text}", style="red"))

    @contextmanager
    def live(self, tally: Tally) -> Iterator[None]:
        """Keep a table of the tally at the bottom of a terminal meanwhile."""
        if not self._console.is_terminal:
            yield
            return
        with Live(
            get_renderable=lambda: table(tally, live=True),
            console=self._console,
            refresh_per_second=REFRESHES_PER_S,
            transient=True,
        ):
            yield

    def shares(self, phase: Phase) -> None:
        """Say the shares of a phase, where there is no live table."""
        if not self._console.is_terminal:
            parts = [
                f"{place.name} {phase.by_backend(place.name)} ({phase.share(place.name):.0%})"
                for place in PLACES
            ]
            line = f"{', '.join(parts)}, failed {len(phase.failures)}"
            self._console.print(f"  requests {phase.title}: {line}")

    def summary(self, tally: Tally, found: Sequence[Check]) -> None:
        """Print the final table, every check and the verdict."""
        self._console.print(table(tally, live=False))
        self.checks(found)
        failed = sum(not check.good for check in found)
        verdict = f"[bold red]{failed} failed.[/]" if failed else "[bold green]All of it right.[/]"
        self._console.print(f"\n  {len(found)} checks. {verdict}")

    def checks(self, found: Sequence[Check]) -> None:
        """Print a line for each check."""
        for check in found:
            mark = "[bold green]PASS[/]" if check.good else "[bold red]FAIL[/]"
            self._console.print(
                f"  {mark}  {check.name:<{NAME_WIDTH}}", Text(check.detail, style="dim")
            )

    def hints(self, enter: str) -> None:
        """Say what can be tried while the demo stays up. ``enter``: how to get a shell in it."""
        beside = Path(sys.executable).with_name("lbfwd")
        lbfwd = beside if beside.exists() and shutil.which("lbfwd") is None else "lbfwd"
        self._console.print(
            HINTS.format(enter=enter, lbfwd=lbfwd, v4=URLS[4], v6=URLS[6]),
            markup=False,
            soft_wrap=True,
        )


def table(tally: Tally, live: bool) -> Table:
    """Return requests by backend and phase. ``live``: and the rate now, else the families."""
    totals = tally.totals()
    phases = [phase for phase in tally.phases if phase.title]
    shown = Table(box=SIMPLE_HEAD)
    shown.add_column("backend")
    for title in ["requests a second"] if live else []:
        shown.add_column(title, width=BAR + 4)
    for phase in phases:
        shown.add_column(phase.title, justify="right", min_width=11)
    for title in [] if live else ["all", "IPv4", "IPv6"]:
        shown.add_column(title, justify="right", style="dim")
    rates = tally.per_second()
    for name in (place.name for place in PLACES):
        now = [_bar(rates[name], rates.total())] if live else []
        parts = [_part(phase, name) for phase in phases]
        families = [totals.counts[name, family] for family in (4, 6)]
        numbers = [] if live else [totals.by_backend(name), *families]
        shown.add_row(name, *now, *parts, *map(str, numbers))
    failures = [str(len(phase.failures)) for phase in phases]
    first = [""] if live else []
    shown.add_row("failed", *first, *failures, style="bold red" if totals.failures else "dim")
    return shown


def _part(phase: Phase, name: str) -> str:
    count = phase.by_backend(name)
    return f"{count} {phase.share(name):>5.0%}" if phase.answered else ""


def _bar(rate: int, total: int) -> Text:
    filled = round(BAR * rate / total) if total else 0
    return Text.assemble(("█" * filled, "green"), ("·" * (BAR - filled), "dim"), f" {rate:>3}")
