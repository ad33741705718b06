"""A configuration as TOML gave it, with what is wrong by itself marked."""

from collections.abc import Iterator
from typing import Any

from lbfwd.config.problem import Location

BAD: Any = object()
"""Stands for a value that was refused."""

Document = dict[str, Any]


def mark_bad(document: Document, location: Location) -> None:
    """Replace the value at this place (present or missing) by BAD."""
    place: Any = document
    for step in location[:-1]:
        place = place[step]
        if place is BAD:  # the whole is bad already
            return
    place[location[-1]] = BAD


def tables(parent: Document, key: str, at: Location = ()) -> Iterator[tuple[Location, Document]]:
    """Yield the entries of an array of tables that are tables, each with its place."""
    items = parent.get(key)
    for index, item in enumerate(items if isinstance(items, list) else ()):
        if isinstance(item, dict):
            yield (*at, key, index), item
