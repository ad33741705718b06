"""Reads keepalived.conf and what it includes: the only I/O of the converter."""

import glob
import re
from collections.abc import Iterator
from pathlib import Path

from lbfwd.importer.lines import Line, uncommented
from lbfwd.importer.note import Notes, Place, UnreadableError

_INCLUDE = re.compile(r"\s*include[armwb]?\s+(?P<pattern>\S.*)")


def gather(path: Path, notes: Notes) -> Iterator[Line]:
    """Yield all lines, included files in the place of their ``include``.

    keepalived looks for includes before conditions and parameters. Bytes that are no UTF-8 are
    replaced: they can only stand in comments and scripts. Raises UnreadableError.
    """
    yield from _file(path, (), notes)


def _file(path: Path, including: tuple[Path, ...], notes: Notes) -> Iterator[Line]:
    try:
        resolved = path.resolve()
        text = path.read_bytes().decode("utf-8", "replace")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UnreadableError(f"{path}: cannot be read: {reason}") from None
    if resolved in including:
        raise UnreadableError(f"{path}: includes itself")
    for number, line in enumerate(text.split("\n"), 1):
        place = Place(str(path), number)
        if found := _INCLUDE.match(line):
            for other in _matching(path.parent, found["pattern"], place, notes):
                yield from _file(other, (*including, resolved), notes)
        else:
            yield Line(line.rstrip("\r"), place)


def _matching(directory: Path, pattern: str, place: Place, notes: Notes) -> list[Path]:
    pattern = uncommented(pattern).strip("\"'")
    if "{" in pattern:
        notes.add(place, f"include {pattern}", "braces in file names are not followed")
        return []
    found = sorted(glob.glob(str(directory / pattern)))
    if not found:
        notes.add(place, f"include {pattern}", "no such file")
    return [Path(name) for name in found]
