"""The figures of docs/tuning.md, made from a result of ``bench.tuning``."""

from collections.abc import Iterable, Mapping
from typing import Any

from bench.result import ROOT

DOCUMENT = ROOT / "docs" / "tuning.md"
BEGIN = "<!-- figures: python -m bench.tuning -->"
END = "<!-- end of figures -->"

Figures = Mapping[str, Any]
# Names of a table's columns; columns of the result, and how their numbers are written.
TABLES: tuple[tuple[tuple[str, ...], dict[str, str]], ...] = (
    (("setting", "rate"), {"rate": "{:.2f}"}),
    (("setting", "intake"), {"intake": "{:.2f}"}),
    (
        ("setting", "burst: packets held", "burst: ms", "slow: ms"),
        {"held_burst_packets": "{:.0f}", "held_burst_ms": "{:.0f}", "held_slow_ms": "{:.0f}"},
    ),
    (
        ("setting", "p50, ms", "p99, ms", "share of the core"),
        {"delay_p50_ms": "{:.3f}", "delay_p99_ms": "{:.3f}", "delay_core": "{:.2f}"},
    ),
)


def write(figures: Figures) -> None:
    """Put the figures into the document. Raises ValueError where it has no place for them."""
    text = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(replaced(text, render(figures)), encoding="utf-8")


def replaced(text: str, block: str) -> str:
    """Return the text with another block between its marks."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"the document needs the marks {BEGIN!r} and {END!r} once")
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{block}\n{END}{rest.partition(END)[2]}"


def render(figures: Figures) -> str:
    """Return the tables, Markdown: medians, and intervals in brackets."""
    parts = [_table(names, _rows(figures, columns)) for names, columns in TABLES]
    waiting = ("packets wait for a worker's successor, ms", _cell("{:.0f}", figures["replaced_ms"]))
    return "\n".join([*parts, _table(waiting, [])])


def _rows(figures: Figures, columns: Mapping[str, str]) -> Iterable[tuple[str, ...]]:
    for setting in figures[next(iter(columns))]:
        cells = (_cell(form, figures[column][setting]) for column, form in columns.items())
        yield (f"`{setting}`", *cells)


def _cell(form: str, figure: Mapping[str, float]) -> str:
    median, low, high = (form.format(figure[key]) for key in ("median", "low", "high"))
    return f"{median} ({low} to {high})"


def _table(names: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [names, tuple("---" for _ in names), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
