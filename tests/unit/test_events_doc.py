"""docs/events.md names every event that the code logs, at its levels, and no other.

An event's name is written down where it is logged: as a literal, or in a dict called ``_EVENTS``
that the call looks it up in. A function with a parameter ``event`` logs what its callers name.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "events.md"
SOURCES = sorted(p for room in ("lbfwd", "workers") for p in (ROOT / room).rglob("*.py"))
LEVELS = ("debug", "info", "warning", "error", "critical")
METHODS = {level: level for level in LEVELS} | {"exception": "error"}
ROW = re.compile(r"^\| `(\w+)` \| ([a-z, ]+) \| ", re.MULTILINE)

Found = Iterator[tuple[str, str]]
"""Event, level; "" where only the caller of a function knows it."""


def literals(node: ast.AST) -> list[str]:
    return [
        n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)
    ]


def level_of(function: ast.expr) -> str:
    """The level of ``log.info`` and its like; empty: it is no method of a logger."""
    if not isinstance(function, ast.Attribute) or function.attr not in METHODS:
        return ""
    return METHODS[function.attr] if "log" in ast.unparse(function.value) else ""


def helpers(tree: ast.Module) -> set[str]:
    """Functions that log what their callers name."""
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and any(argument.arg == "event" for argument in node.args.args)
    }


def named(node: ast.expr, level: str) -> Found:
    """The names that an argument stands for."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value, level
        return
    unparsed = ast.unparse(node)
    assert unparsed == "event" or unparsed.startswith("_EVENTS["), f"no literal: {unparsed}"


def of_call(call: ast.Call, passing_on: set[str]) -> Found:
    function = call.func
    name = getattr(function, "attr", getattr(function, "id", ""))
    if level := level_of(function):
        yield from named(call.args[0], level)
    elif name == "level" or name in passing_on:
        yield from named(call.args[0], "")
    elif name == "Event" and len(call.args) == 3 and literals(call.args[1]):  # health/news.py
        yield literals(call.args[1])[0], literals(call.args[0])[0]
    for method, argument in zip(call.args, call.args[1:], strict=False):
        if level := level_of(method):  # callback(log.info, "done")
            yield from named(argument, level)


def of_table(node: ast.Assign | ast.AnnAssign) -> Found:
    """What a dict called ``_EVENTS`` holds: names, or pairs of level and name."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    if [ast.unparse(target) for target in targets] != ["_EVENTS"]:
        return
    assert isinstance(node.value, ast.Dict)
    for value in node.value.values:
        *level, name = literals(value)
        yield name, level[0] if level else ""


def events(text: str) -> dict[str, set[str]]:
    """Levels by event."""
    tree = ast.parse(text)
    passing_on, found = helpers(tree), defaultdict[str, set[str]](set)
    for node in ast.walk(tree):
        pairs: Found = iter(())
        if isinstance(node, ast.Call):
            pairs = of_call(node, passing_on)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            pairs = of_table(node)
        for name, level in pairs:
            found[name] |= {level} - {""}
    return found


def all_events() -> dict[str, set[str]]:
    found = defaultdict[str, set[str]](set)
    for path in SOURCES:
        for name, levels in events(path.read_text()).items():
            found[name] |= levels
    return found


def documented() -> dict[str, set[str]]:
    rows = ROW.findall(DOCUMENT.read_text())
    assert len({name for name, _ in rows}) == len(rows), "an event has one row"
    return {name: set(levels.split(", ")) for name, levels in rows}


def test_every_event_is_documented_and_no_other() -> None:
    rows, logged = documented().keys(), all_events().keys()
    assert (sorted(logged - rows), sorted(rows - logged)) == ([], [])


def test_levels_are_as_documented() -> None:
    rows = documented()
    assert {level for levels in rows.values() for level in levels} <= set(LEVELS)
    wrong = {
        n: (found, rows[n]) for n, found in all_events().items() if not found <= rows.get(n, found)
    }
    assert not wrong


def test_names_are_of_one_form() -> None:
    assert [name for name in all_events() if not re.fullmatch(r"[a-z]+(_[a-z]+)*", name)] == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('self._log.warning("a", x=1)', {"a": {"warning"}}),
        ('log.get().exception("a")', {"a": {"error"}}),
        ('undo.callback(log.info, "a")', {"a": {"info"}}),
        ('def note(event):\n log.info(event)\nnote("a")', {"a": set()}),
        ('_EVENTS = {"x": "a"}\nlevel(_EVENTS[x])', {"a": set()}),
        ('_EVENTS: T = {"x": ("error", "a")}', {"a": {"error"}}),
        ('Event("error", "a", {})', {"a": {"error"}}),
        ('parser.error("a")', {}),
    ],
)
def test_the_collector_collects(text: str, found: dict[str, set[str]]) -> None:
    assert events(text) == found


def test_the_collector_refuses_what_it_cannot_read() -> None:
    with pytest.raises(AssertionError, match="no literal"):
        events('log.info(f"backend_{mode}")')
