"""``lbfwd import FILE``: keepalived's virtual servers as an lbfwd configuration."""
# ruff: noqa: N999 - a verb's module has the name of the verb; main.py imports it by that

import argparse
import sys
from pathlib import Path

HELP = "Convert the virtual servers of a keepalived.conf; name what has no equivalent on stderr."


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    parser.add_argument("file", metavar="FILE", type=Path, help="keepalived.conf")
    parser.add_argument(
        "-o", "--output", metavar="FILE", type=Path, help="write here (default: stdout); a new file"
    )
    parser.add_argument(
        "-i", "--config-id", metavar="ID", help="take the lines that begin with @ID: keepalived -i"
    )


def run(args: argparse.Namespace) -> int:
    """Read, convert, write. Returns 1 when something cannot be read or written."""
    from lbfwd.importer.convert import convert
    from lbfwd.importer.note import UnreadableError

    try:
        text, notes = convert(args.file, args.config_id)
    except UnreadableError as error:
        print(f"lbfwd import: {error}", file=sys.stderr)
        return 1
    for note in notes:
        print(note, file=sys.stderr)
    if args.output is None:
        print(text, end="")
        return 0
    try:
        with args.output.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        print(f"lbfwd import: {args.output}: cannot be written: {error.strerror}", file=sys.stderr)
        return 1
    return 0
