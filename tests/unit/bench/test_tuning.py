"""docs/tuning.md shows the figures of its result, and speaks of every key."""

import json
import re
from pathlib import Path

import pytest

from bench import document
from lbfwd.config import Workers, WorkerSettings

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "tuning.md").read_text()
RESULT = ROOT / "docs" / "benchmarks" / "tuning.json"
# The columns of the document's tables, in its order, by their names in the result.
TABLES = (
    ("rate",),
    ("intake",),
    ("held_burst_packets", "held_burst_ms", "held_slow_ms"),
    ("delay_p50_ms", "delay_p99_ms", "delay_core"),
)
CELL = re.compile(r"([\d.]+) \(([\d.]+) to ([\d.]+)\)")


def tables() -> list[list[list[str]]]:
    """The cells of the tables between the marks, without their heads."""
    block = TEXT.split(document.begin("tuning"))[1].split(document.END)[0]
    rows = [
        [[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines()]
        for part in block.strip().split("\n\n")
    ]
    return [table[2:] if len(table) > 2 else table[:1] for table in rows]


def agrees(cell: str, figure: dict[str, float]) -> bool:
    """Whether a cell shows a figure, to as many digits as it shows."""
    found = CELL.fullmatch(cell)
    assert found, cell
    return all(
        abs(float(shown) - figure[name]) <= 0.5001 * 10 ** -len(shown.partition(".")[2])
        for shown, name in zip(found.groups(), ("median", "low", "high"), strict=True)
    )


def test_the_tables_are_those_of_the_result() -> None:
    figures = json.loads(RESULT.read_text())["figures"]
    *shown, waiting = tables()
    assert len(shown) == len(TABLES)
    for table, columns in zip(shown, TABLES, strict=True):
        assert [row[0].strip("`") for row in table] == list(figures[columns[0]])
        for name, *cells in table:
            for cell, column in zip(cells, columns, strict=True):
                assert agrees(cell, figures[column][name.strip("`")]), (name, column)
    assert agrees(waiting[0][1], figures["replaced_ms"])


@pytest.mark.parametrize("key", Workers.model_fields)
def test_every_key_has_its_paragraph(key: str) -> None:
    assert re.search(rf"^\*\*`{key}`\*\*", TEXT, re.MULTILINE)


@pytest.mark.parametrize("key", WorkerSettings.model_fields)
def test_every_key_of_a_worker_was_measured(key: str) -> None:
    figures = json.loads(RESULT.read_text())["figures"]
    settings = {name for column in figures.values() for name in column}
    assert len([name for name in settings if f"{key} = " in name]) >= 1
