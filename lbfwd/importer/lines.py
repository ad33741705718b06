"""Lines as keepalived's parser takes them: comments, ``@conditions``, ``$PARAMETERS``.

keepalived.conf(5), ADVANCED CONFIGURATION. Of predefined parameters (``${_PWD}`` …) none is
replaced: scripts have them, and scripts are not converted.
"""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from lbfwd.importer.note import Notes, Place, UnreadableError

_MOST_ROUNDS = 100  # of parameters in parameters
_MOST_CHARACTERS = 100_000
DOUBLE_QUOTED = r'"(?:\\.|[^"\\])*\\?(?:"|\Z)'
SINGLE_QUOTED = r"'(?:\\.|[^'\\])*\\?(?:'|\Z)"
_BEFORE_COMMENT = re.compile(rf"(?:{DOUBLE_QUOTED}|{SINGLE_QUOTED}|[^\"'#!])*", re.DOTALL)
_CONDITION = re.compile(r"@(?P<negated>\^?)(?P<id>\S+)\s*(?P<rest>.*)", re.DOTALL)
_DEFINITION = re.compile(r"\$(?P<name>[A-Za-z_][A-Za-z0-9_]*)=(?P<value>.*)", re.DOTALL)
_USE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*)(?=\s|\Z))")
_REPEATED = re.compile(r"~(?:SEQx?|LST)\(")


class Line(NamedTuple):
    """A line and where it stands."""

    text: str
    place: Place


def expand(lines: Iterable[Line], config_id: str | None, notes: Notes) -> Iterator[Line]:
    """Yield the lines that count, without comments, parameters replaced.

    ``config_id`` is keepalived's ``-i``; without one, lines with a condition are left out, each
    with a note. Raises UnreadableError where parameters never come to an end.
    """
    yield from _Expansion(config_id, notes).of(lines)


def uncommented(text: str) -> str:
    """Return a line up to its comment (``#`` or ``!`` outside of quotes), without outer space."""
    found = _BEFORE_COMMENT.match(text)
    return (found[0] if found else "").strip()


class _Expansion:
    def __init__(self, config_id: str | None, notes: Notes) -> None:
        self._config_id = config_id
        self._notes = notes
        self._values: dict[str, str] = {}

    def of(self, lines: Iterable[Line]) -> Iterator[Line]:
        rest = iter(lines)
        for line in rest:
            text = self._taken(Line(uncommented(line.text), line.place))
            if found := _DEFINITION.fullmatch(text):
                self._values[found["name"]] = _whole(found["value"], rest)
                continue
            if not text:
                continue
            replaced = self._replaced(text, line.place)
            if replaced == text:
                yield from self._plain(Line(text, line.place))
            else:  # what comes out may be lines, conditions and definitions of its own
                yield from self.of([Line(part, line.place) for part in replaced.split("\n")])

    def _taken(self, line: Line) -> str:
        """Return a line without its condition; empty: it is for another instance."""
        text = line.text
        while found := _CONDITION.fullmatch(text):
            if self._config_id is None:
                why = "for keepalived -i ID only: left out; say which by --config-id"
                self._notes.add(line.place, text, why)
                return ""
            if (found["id"] == self._config_id) == bool(found["negated"]):
                return ""
            text = found["rest"]
        return text

    def _replaced(self, text: str, place: Place) -> str:
        for _ in range(_MOST_ROUNDS):
            after = _USE.sub(lambda m: self._values.get(m[1] or m[2], m[0]), text)
            if after == text:
                return text
            text = after
            if len(text) > _MOST_CHARACTERS:
                break
        raise UnreadableError(f"{place}: parameters that refer to each other without an end")

    def _plain(self, line: Line) -> Iterator[Line]:
        if _REPEATED.match(line.text):
            self._notes.add(line.place, line.text, "~SEQ and ~LST are not expanded: left out")
        else:
            yield line


def _whole(value: str, rest: Iterator[Line]) -> str:
    """Return a definition's value: lines that end in a backslash go on in the next one."""
    parts = []
    while value.endswith("\\"):
        parts.append(value[:-1].rstrip())
        value = uncommented(next(rest, Line("", Place("", 0))).text)
    return "\n".join([*parts, value])
