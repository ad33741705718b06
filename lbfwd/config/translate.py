"""pydantic's errors in an operator's words, and places in a document as key paths."""

import difflib
import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from lbfwd.config.model import known_keys, tables_with, worker_name
from lbfwd.config.problem import (
    MISSING,
    Finding,
    Location,
    Problem,
    entry,
    hidden,
    hide,
    show,
)
from lbfwd.config.values import MAX_CPU

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SECRET_KEY = re.compile(r"key|hash|secret", re.IGNORECASE)
# Keys of [workers] that a [[worker]] cannot have, and why.
_SHARED = {
    "cpus": "it lists every worker; a [[worker]] has one cpu",
    "fanout": "one program spreads packets over all workers",
    "flows": "the workers read each other's flow tables, which have one size",
}
_ARRAYS = (("worker",), ("pool",), ("service",))
_SIMPLE_RULES = {
    "missing": "required",
    "bool_type": "true or false, without quotes",
    "model_type": "a table",
}


def findings(error: ValidationError) -> list[Finding]:
    """Return one finding for each thing that is wrong; what only follows from another is left out.

    Locations are those of the TOML document.
    """
    details = error.errors(include_url=False)
    return [_finding(detail) for detail in details if not _follows(detail)]


def _follows(detail: ErrorDetails) -> bool:
    """Tell whether an error only follows from another one that is reported too."""
    kind = detail["type"]
    if kind == "too_short":  # pydantic counts the good entries only
        return bool(detail["input"])
    return kind == "default_factory_not_called"


def _finding(detail: ErrorDetails) -> Finding:
    location, kind = detail["loc"], detail["type"]
    if kind == "extra_forbidden":
        return _unknown_key(location, detail["input"])
    value = MISSING if kind == "missing" else show(detail["input"])
    return Finding(location, value, _rule(detail))


def _rule(detail: ErrorDetails) -> str:
    location, kind, context = detail["loc"], detail["type"], detail.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind == "tuple_type":
        top = len(location) == 1
        return f"an array of tables: write [[{location[0]}]]" if top else "an array: [ … ]"
    if kind == "too_short":
        return "cannot be empty"
    if kind == "too_long":
        return f"at most {context['max_length']} entries, here are {context['actual_length']}"
    if kind == "literal_error":
        return str(context["expected"]).replace("'", '"')
    return _SIMPLE_RULES.get(kind, detail["msg"])


def _unknown_key(location: Location, value: object) -> Finding:
    table = tuple(step for step in location[:-1] if isinstance(step, str))
    key = str(location[-1])
    shown = hidden(value) if _SECRET_KEY.search(key) else show(value)
    if table == ("worker",) and (reason := _SHARED.get(key)):
        return Finding(location, shown, f"shared by all workers, in [workers]: {reason}")
    return Finding(location, shown, f"unknown key; {_advice(table, key)}")


def _advice(table: tuple[str, ...], key: str) -> str:
    known = known_keys(table)
    if close := closest(key.lower().replace("-", "_"), known):
        return f"did you mean {close}?"
    if places := tables_with(key):
        where = " or ".join(_table_name(place) for place in places)
        return f"its place is {where}"
    return f"known here: {', '.join(known)}"


def _table_name(table: tuple[str, ...]) -> str:
    if not table:
        return "the top of the file, before the first [table]"
    return f"[[{table[0]}]]" if table in _ARRAYS else f"[{'.'.join(table)}]"


def closest(word: str, known: Collection[str]) -> str:
    """Return the known word that was probably meant, or an empty string."""
    matches = difflib.get_close_matches(word, known, n=1)
    return matches[0] if matches else ""


class Places:
    """Turns findings of one document into problems that name file and key path."""

    def __init__(
        self,
        document: dict[str, Any],
        file: str,
        flags: Collection[str] = (),
        elsewhere: Mapping[str, str] | None = None,
    ) -> None:
        """Take names from a document.

        ``flags``: ``[workers]`` keys set by the command line. ``elsewhere``: which tables are not
        from ``file``, and what problems call the place where they are from.
        """
        self._file = file
        self._elsewhere = elsewhere or {}
        self._flags = flags
        self._entries = {
            **dict(_entries(document, "worker", "cpu")),
            **dict(_entries(document, "pool", "name")),
            **dict(_entries(document, "service", "name")),
        }

    def problem(self, finding: Finding) -> Problem:
        """Return the problem."""
        location, value, rule = finding.location, finding.value, hide(finding.rule)
        if location[0] == "workers" and len(location) > 1 and location[1] in self._flags:
            flag = f"--{str(location[1]).replace('_', '-')}"
            return Problem("command line", flag, value, rule)
        file = self._elsewhere.get(str(location[0]), self._file)
        return Problem(file, self.key(location), value, rule)

    def key(self, location: Location) -> str:
        """Return the key path: ``pool "web".backends[1].weight``."""
        if head := self._entries.get(location[:2]):
            return head + _steps(location[2:])
        return _steps(location).removeprefix(".")


def _steps(location: Sequence[str | int]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{_key(step)}" for step in location)


def _key(step: str) -> str:
    return hide(step if _BARE_KEY.fullmatch(step) else json.dumps(step))


def _entries(document: dict[str, Any], table: str, key: str) -> Iterator[tuple[Location, str]]:
    """Yield the entries that can be called by a key: it is usable, and no other has its value."""
    items = document.get(table)
    if not isinstance(items, list):
        return
    names = [_name(key, item.get(key)) if isinstance(item, dict) else "" for item in items]
    times = Counter(names)
    for index, name in enumerate(names):
        if name and times[name] == 1:
            yield (table, index), entry(table, name)


def _name(key: str, value: object) -> str:
    """Return what an entry can be called; empty: it is called by its place."""
    if key == "cpu":
        return worker_name(value) if type(value) is int and 0 <= value <= MAX_CPU else ""
    usable = isinstance(value, str) and value.isprintable() and len(value) <= 64
    return str(value) if usable else ""
