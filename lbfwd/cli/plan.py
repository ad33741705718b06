"""``lbfwd plan FILE``: what a reload of the running lbfwd would do; nothing is changed."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lbfwd.cli.ask import add_options, change

if TYPE_CHECKING:
    from lbfwd.supervisor.changes import Forecast
    from lbfwd.supervisor.forecast import ServiceForecast

HELP = "Show what a reload would do, service by service; change nothing."
NAMES_SHOWN = 5


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    parser.add_argument("file", metavar="FILE", type=Path, help="the configuration, TOML")
    add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Have the running lbfwd compare. Returns 1 for a configuration that cannot be run.

    The file's text is sent: what the user cannot read, nobody reads for them.
    """
    from lbfwd.config import ConfigError
    from lbfwd.config.load import read_text

    try:
        body = {"text": read_text(args.file), "file": str(args.file.absolute())}
    except ConfigError as error:
        print(*error.problems, sep="\n", file=sys.stderr)
        return 1
    return change(args, "/v1/plan", body, _show)


def _show(body: bytes) -> None:
    from lbfwd.supervisor.changes import Forecast

    print(*lines(Forecast.model_validate_json(body)), sep="\n")


def lines(forecast: "Forecast") -> Iterator[str]:
    """Yield what to print."""
    if not forecast.changes:
        yield f"{forecast.file}: no change"
        return
    yield f"{forecast.file}: {_count(len(forecast.changes), 'change')}"
    yield from (f"  {change}" for change in forecast.changes)
    for service in forecast.services:
        yield from _service(service)
    if not forecast.services:
        yield "no service changes: no bucket moves, no flow breaks"
    if forecast.assumed:
        yield f"taken to be well, for nobody has asked them yet: {_names(forecast.assumed)}"
    if forecast.workers:
        yield "workers or rings are replaced one after another, without a packet lost, for:"
        yield from (f"  {change.key}" for change in forecast.workers)
    if forecast.restart:
        yield "refused by a reload, for these need a restart of lbfwd:"
        yield from (f"  {change}" for change in forecast.restart)


def _service(service: "ServiceForecast") -> Iterator[str]:
    yield f"service {service.name} (pool {service.pool}): {service.fate}"
    weights = tuple(f"{w.backend} {w.old} -> {w.new}" for w in service.reweighted)
    for what, names in (
        ("added", service.added),
        ("removed", service.removed),
        ("reweighted", weights),
    ):
        if names:
            yield f"  {what}: {_names(names)}"
    buckets = "" if service.buckets is None else f" ({service.buckets})"
    if service.fate != "added":
        yield f"  buckets that move: {service.moved:.2%}{buckets}"
        closing = f" ({service.closing} of them closing)" if service.closing else ""
        yield f"  live flows that break: {service.breaking} of {service.flows}{closing}"


def _names(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
