"""Statements by name, and how their values are read; what cannot be read is noted."""

import re
from collections.abc import Container
from typing import Self

from lbfwd.importer.note import Notes
from lbfwd.importer.reasons import REASONS
from lbfwd.importer.tree import Statement

_WHOLE = re.compile(r"[0-9]{1,9}", re.ASCII)
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,6})?", re.ASCII)
_OFF = ("off", "false", "no")


class Scope:
    """A block's statements; what it does not say, the block around it says.

    Of statements with the same name the last one counts.
    """

    def __init__(self, block: Statement, around: Self | None = None) -> None:
        self.block = block
        self._around = around
        self._own = {statement.name: statement for statement in block.inside}

    def find(self, *names: str) -> Statement | None:
        """Return the statement of the first of these names that is there."""
        for name in names:
            if name in self._own:
                return self._own[name]
        return self._around.find(*names) if self._around else None

    def value(self, name: str) -> str:
        """Return what a statement says, or nothing."""
        found = self.find(name)
        return found.value if found else ""

    def whole(self, name: str, default: int, low: int, high: int, notes: Notes) -> int:
        """Return a whole number, brought into our range; what that changes is noted."""
        found = self.find(name)
        if found is None:
            return default
        if not _WHOLE.fullmatch(found.value):
            notes.add(found.place, str(found), f"no whole number: {default} in its place")
            return default
        return _within(int(found.value), low, high, found, notes)

    def milliseconds(
        self, name: str, default_ms: int, limits: tuple[int, int], notes: Notes
    ) -> int:
        """Return a time (keepalived: in seconds) in ms, brought into our range, as above."""
        found = self.find(name)
        if found is None:
            return default_ms
        if not _SECONDS.fullmatch(found.value):
            notes.add(found.place, str(found), f"no time: {default_ms} ms in its place")
            return default_ms
        return _within(round(1000 * float(found.value)), *limits, found, notes)


def _within(number: int, low: int, high: int, found: Statement, notes: Notes) -> int:
    fitting = min(max(number, low), high)
    if fitting != number:
        notes.add(found.place, str(found), f"{low} to {high} here: {fitting}")
    return fitting


def name_the_rest(block: Statement, known: Container[str], notes: Notes) -> None:
    """Note each statement of a block that is not converted, with the reason."""
    for statement in block.inside:
        if statement.name not in known and statement.value not in _OFF:
            why = REASONS.get(statement.name, "not known: left out")
            notes.add(statement.place, str(statement), why)
