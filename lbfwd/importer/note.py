"""What the converter has to say of a line, and where that line stands."""

from dataclasses import dataclass, field
from typing import NamedTuple

_SHOWN_CHARACTERS = 80


class UnreadableError(Exception):
    """The text is no keepalived.conf, or a file of it cannot be read; says where and why."""


class Place(NamedTuple):
    """A line of a file."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Note:
    """What has no equivalent, or means something else: where, the words there, and why."""

    place: Place
    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.place}: {self.what}: {self.why}"


@dataclass
class Notes:
    """Collects notes, in the order in which they are made."""

    made: list[Note] = field(default_factory=list)

    def add(self, place: Place, what: str, why: str) -> None:
        """Make a note."""
        self.made.append(Note(place, short(what), why))


def short(text: str) -> str:
    """Return the beginning of a text, on one line."""
    line = printable(text)
    return line if len(line) <= _SHOWN_CHARACTERS else f"{line[: _SHOWN_CHARACTERS - 1]}…"


def printable(text: str) -> str:
    """Return a text as it can stand in a comment and on a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text.replace("\t", " "))
