"""What is wrong with a configuration, as an operator reads it; no secret passes through here."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from pydantic import BaseModel

MISSING = "(missing)"
_SHOWN_CHARACTERS = 80
_CONTAINERS = (dict, list, tuple, BaseModel)
# Whoever puts the hash_key into the wrong place must not find it in a log: no run of hex digits
# of about its length is ever shown.
_SECRET = re.compile(r"[0-9a-fA-F]{24,}")

Step = str | int
Location = tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, or worth a warning.

    ``file`` is the configuration file, or ``command line``; ``key`` the path of the key, such as
    ``pool "web".backends[1].weight`` (or ``line 3, column 5``; empty: the file as a whole);
    ``value`` the offending value as it stands in TOML (empty: nothing to show); ``rule`` what is
    expected instead.
    """

    file: str
    key: str
    value: str
    rule: str

    def __str__(self) -> str:
        place = f"{self.key} = {self.value}" if self.value else self.key
        return ": ".join(part for part in (self.file, place, self.rule) if part)


class ConfigError(Exception):
    """A configuration was refused; ``problems`` holds every reason, and is never empty."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


class Finding(NamedTuple):
    """A problem whose place is still a path of steps (``("pool", 0, "name")``)."""

    location: Location
    value: str
    rule: str


def hide(text: str) -> str:
    """Blank what may be the hash_key."""
    return _SECRET.sub(lambda match: f"(hidden, {len(match[0])} characters)", text)


def hidden(value: object) -> str:
    """Stand for a secret value: its length is all that is said."""
    return f"(hidden, {len(value)} characters)" if isinstance(value, str) else "(hidden)"


def show(value: object) -> str:
    """Return a value as it stands in TOML, cut to a line; tables are named, never printed."""
    if isinstance(value, dict):
        return "(a table)"
    if isinstance(value, list | tuple) and any(isinstance(v, _CONTAINERS) for v in value):
        return "(an array of arrays or tables)"
    try:
        text = hide(json.dumps(value, default=str))
    except ValueError:  # Python refuses to print integers of more than 4300 digits
        return "(a number of thousands of digits)"
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}…"


def entry(table: str, name: str) -> str:
    """Return the key path of an entry of an array of tables: ``pool "web"``."""
    return f'{table} "{hide(name)}"'
