"""Metric families of prometheus_client, from rows of labels and values. Pure.

Samples are made when they are written down and gone right afterwards: hundreds of thousands that
are kept, if only for a moment, have Python's collector look through the whole heap, and everything
waits for that.
"""

from collections.abc import Iterable, Iterator

from prometheus_client.core import Metric
from prometheus_client.samples import Sample

Row = tuple[dict[str, str], float]
"""Labels, value."""


class Family(Metric):
    """A family whose samples can be gone through once."""

    def __init__(
        self, name: str, documentation: str, kind: str, suffix: str, rows: Iterable[Row]
    ) -> None:
        """``suffix``: what the names of its samples have besides."""
        super().__init__(name, documentation, kind)
        self.samples = _samples(name + suffix, rows)  # type: ignore[assignment]


def _samples(name: str, rows: Iterable[Row]) -> Iterator[Sample]:
    return (Sample(name, labels, value) for labels, value in rows)


def gauge(name: str, documentation: str, rows: Iterable[Row]) -> Metric:
    """Return a family of values that go up and down."""
    return Family(name, documentation, "gauge", "", rows)


def counter(name: str, documentation: str, rows: Iterable[Row]) -> Metric:
    """Return a family of values that only grow; ``name`` is without ``_total``."""
    return Family(name, documentation, "counter", "_total", rows)


def info(name: str, documentation: str, labels: Iterable[dict[str, str]]) -> Metric:
    """Return a family that says something in its labels; ``name`` is without ``_info``."""
    return Family(name, documentation, "info", "_info", ((each, 1.0) for each in labels))
