"""The screen of ``lbfwd top``: tables that fit a terminal of 80 columns and more. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lbfwd.cli.rates import Rate, Sample
from lbfwd.cli.text import age, duration, scaled
from lbfwd.supervisor.status import BackendStatus, PoolStatus, Status

CELL_PADDING = 2
STYLES = {
    "up": "green",
    "starting": "yellow",
    "drained": "yellow",
    "failed_open": "bold red",
    "down": "red",
    "disabled": "red",
    "checking": "yellow",
    "joining": "yellow",
    "paused": "yellow",
    "gone": "red",
}
_LINES_BESIDE = 2  # head and drops
Row = Sequence[str | Text]


@dataclass(frozen=True)
class _Section:
    """A table to be: ``hidden`` rows found no place."""

    names: Sequence[str]
    rows: Sequence[Row]
    hidden: int = 0

    @property
    def lines(self) -> int:
        """Lines on the screen, the head included."""
        return 1 + len(self.rows) + (self.hidden > 0)


def screen(status: Status, found: Sample, width: int, height: int | None) -> RenderableType:
    """Return the picture. ``height``: lines there are; None: as many as it takes."""
    sections = [_workers(status, found), _services(status, found), _backends(status, found)]
    if height is not None:
        sections = _fitting(sections, height - _LINES_BESIDE)
    return Group(_head(status, found), *(_table(s, width) for s in sections), _drops(found))


def _fitting(sections: Sequence[_Section], lines: int) -> list[_Section]:
    """Take rows from the longest until all have a place."""
    fitting = list(sections)
    while sum(section.lines for section in fitting) > lines:
        longest = max(range(len(fitting)), key=lambda n: len(fitting[n].rows))
        section = fitting[longest]
        if len(section.rows) <= 1:
            break
        fitting[longest] = replace(section, rows=section.rows[:-1], hidden=section.hidden + 1)
    return fitting


def _head(status: Status, found: Sample) -> Text:
    parts = [
        status.node,
        f"up {duration(status.uptime_s)}",
        f"generation {status.generation}",
        f"{scaled(found.packets)} pkt/s",
        f"{scaled(found.bits)}bit/s",
        f"{scaled(found.new_flows)} new flows/s",
    ]
    return Text("  ".join(parts), style="bold", no_wrap=True, overflow="ellipsis")


def _workers(status: Status, found: Sample) -> _Section:
    rows: list[Row] = []
    for worker in status.workers:
        load = found.workers.get(worker.slot)
        if load is None:
            continue
        drops = Text(scaled(load.ring_drops), style="bold red" if load.ring_drops else "")
        state = Text(worker.state, style="" if worker.state == "running" else "bold red")
        rows.append(
            (
                f"{worker.slot} on cpu {worker.cpu}",
                state,
                scaled(load.packets),
                scaled(load.bursts),
                f"{load.busy:.0%}",
                drops,
            )
        )
    return _Section(["worker", "state", "pkt/s", "bursts/s", "busy", "ring-drops/s"], rows)


def _services(status: Status, found: Sample) -> _Section:
    ranked = sorted(status.services, key=lambda s: -found.services[s.name].packets)
    rows: list[Row] = [
        (
            service.name,
            f"{service.vip} {service.protocol}/{service.port or 'any'}",
            *_rates(found.services[service.name]),
        )
        for service in ranked
    ]
    return _Section(["service", "vip", "pkt/s", "bit/s", "new/s", "flows"], rows)


def _backends(status: Status, found: Sample) -> _Section:
    """Troubled ones first, then by traffic."""

    def rank(pair: tuple[PoolStatus, BackendStatus]) -> tuple[bool, float]:
        pool, backend = pair
        return backend.condition == "up", -found.backends[pool.name, backend.name].packets

    rows: list[Row] = [
        (
            f"{pool.name}/{backend.name}",
            Text(backend.condition, style=STYLES[backend.condition]),
            age(backend.since),
            *_rates(found.backends[pool.name, backend.name]),
            backend.health_reason or backend.reason,
        )
        for pool, backend in sorted(
            ((pool, backend) for pool in status.pools for backend in pool.backends), key=rank
        )
    ]
    names = ["backend", "health", "since", "pkt/s", "bit/s", "new/s", "flows", "reason"]
    return _Section(names, rows)


def _rates(rate: Rate) -> tuple[str, ...]:
    return (*map(scaled, (rate.packets, rate.bits, rate.new_flows)), str(rate.flows))


def _drops(found: Sample) -> Text:
    rising = sorted(((n, r) for n, r in found.drops.items() if r), key=lambda pair: -pair[1])
    if not rising:
        return Text("drops/s: none", style="dim")
    text = "  ".join(f"{name} {scaled(rate)}" for name, rate in rising)
    return Text(f"drops/s: {text}", style="yellow", no_wrap=True, overflow="ellipsis")


def _table(section: _Section, width: int) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, CELL_PADDING, 0, 0), width=width)
    for number, name in enumerate(section.names):
        figure = name.endswith("/s") or name in ("flows", "busy")
        table.add_column(
            name,
            justify="right" if figure else "left",
            style="cyan" if number == 0 else "",
            no_wrap=True,
            overflow="ellipsis",
            max_width=width // 3,
            header_style="bold underline",
        )
    last = table.columns[-1]
    if last.header == "reason":
        last.max_width, last.ratio = None, 1  # what is left of the line
    else:
        table.add_column(ratio=1)
    for row in section.rows:
        table.add_row(*row)
    if section.hidden:
        table.add_row(f"… {section.hidden} more", style="dim")
    return table
