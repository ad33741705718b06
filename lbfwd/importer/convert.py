"""From a keepalived.conf to the text of a configuration."""

from pathlib import Path

from lbfwd.importer.lines import expand
from lbfwd.importer.note import Notes
from lbfwd.importer.render import grouped, render
from lbfwd.importer.source import gather
from lbfwd.importer.translate import translate
from lbfwd.importer.tree import parse


def convert(path: Path, config_id: str | None = None) -> tuple[str, list[str]]:
    """Return the configuration and what has to be said of it, a line each.

    Blocks until all files are read. Raises UnreadableError.
    """
    notes = Notes()
    imported = translate(parse(expand(gather(path, notes), config_id, notes)), notes)
    by_section = (line for section in imported.sections for line in grouped(section.notes))
    return render(imported), [*grouped(imported.notes), *by_section]
