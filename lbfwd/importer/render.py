"""What was converted, as TOML with comments; pure."""

import json
from collections.abc import Iterator, Mapping, Sequence

from lbfwd.importer.note import Note, printable
from lbfwd.importer.translate import Imported, Section

_HEAD = """\
# Made by `lbfwd import`. A comment that begins with a file and lines is about what stands there:
# it has no equivalent, or means something else here. docs/migration.md tells how to move.
"""
_NODE = """\
hash_key_file = "/etc/lbfwd/hash_key"   # the same on every node: openssl rand -hex 16

[node]
interfaces = {interfaces}   # where the VIPs' packets arrive

[workers]
cpus = [0]   # one worker each: docs/sizing.md
"""


def render(imported: Imported) -> str:
    """Return the text of a configuration."""
    interfaces = _value(list(imported.interfaces) or ["eth0"])
    parts = [
        _HEAD,
        *map(_comment, grouped(imported.notes)),
        "",
        _NODE.format(interfaces=interfaces),
    ]
    for section in imported.sections:
        parts += _section(section)
    return "\n".join(parts)


def grouped(notes: Sequence[Note]) -> list[str]:
    """Return notes as lines; equal ones of several lines of a file stand together."""
    lines: dict[tuple[str, str, str], list[int]] = {}
    for note in notes:
        lines.setdefault((note.place.file, note.what, note.why), []).append(note.place.line)
    return [
        f"{file}:{','.join(map(str, dict.fromkeys(numbers)))}: {what}: {why}"
        for (file, what, why), numbers in lines.items()
    ]


def _comment(line: str) -> str:
    return f"# {printable(line)}"


def _section(section: Section) -> Iterator[str]:
    yield _comment(section.heading)
    yield from map(_comment, grouped(section.notes))
    yield "[[pool]]"
    yield from _keys(section.pool)
    yield "backends = ["
    yield from (f"  {{ {', '.join(_keys(backend))} }}," for backend in section.backends)
    yield "]"
    if section.health:
        yield "[pool.health]"
        yield from _keys(section.health)
    yield ""
    for service in section.services:
        yield "[[service]]"
        yield from _keys(service)
        yield ""


def _keys(table: Mapping[str, object]) -> Iterator[str]:
    yield from (f"{key} = {_value(value)}" for key, value in table.items())


def _value(value: object) -> str:
    """Return a value in TOML: of text, numbers, booleans and arrays of text JSON's form is one."""
    return json.dumps(value)
