"""Commands of lbfwd in the documents and in deploy/ are ones that lbfwd understands."""

import argparse
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbfwd.cli.main import VERBS

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]
KIT = sorted(path for path in (ROOT / "deploy").rglob("*") if path.is_file())
README = (ROOT / "README.md").read_text()
QUOTED = re.compile(r"`((?:sudo )?lbfwd [a-z][^`\n]*)`")
BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
SHELL = ("", "sh", "console")
LINE = re.compile(r"^ *(?:[$#] )?(?:sudo )?lbfwd ([a-z].*)$", re.MULTILINE)
END = re.compile(r"\s*(?:[|;<>#]|&&).*")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def commands(text: str) -> Iterator[str]:
    """What stands behind ``lbfwd``, in backticks or at the beginning of a block's line."""
    for quoted in QUOTED.findall(text):
        yield from LINE.findall(quoted)
    for language, block in BLOCK.findall(text):
        if language in SHELL:
            yield from LINE.findall(block.replace("\\\n", " "))


def parser_of(verb: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(exit_on_error=False)
    importlib.import_module(f"lbfwd.cli.{verb}").configure(parser)
    return parser


def complaint(command: str) -> str:
    """What lbfwd says to it, but not that something is left out; empty: nothing."""
    verb, *words = shlex.split(END.sub("", command))
    if verb not in VERBS:
        return f"no verb: {verb}"
    try:
        _, unknown = parser_of(verb).parse_known_args(words)
    except argparse.ArgumentError as error:
        named = words[-1].startswith("-") and "expected one argument" in str(error)
        return "" if named else str(error)
    except SystemExit:  # 3.11 exits all the same when something required is lacking
        return ""
    return f"unknown: {unknown}" if set(unknown) - {"…"} else ""


@pytest.mark.parametrize("path", [*DOCUMENTS, *KIT], ids=name)
def test_lbfwd_understands_the_commands(path: Path) -> None:
    found = {command: complaint(command) for command in commands(path.read_text())}
    assert {command: what for command, what in found.items() if what} == {}


def test_commands_are_found_and_wrong_ones_are_noticed() -> None:
    text = "`lbfwd status --fleat`\n```sh\nsudo lbfwd drain \\\n  a --wait | cat\nlbfwd fly\n```\n"
    found = list(commands(text))
    assert [END.sub("", command).split() for command in found] == [
        ["status", "--fleat"],
        ["drain", "a", "--wait"],
        ["fly"],
    ]
    assert [bool(complaint(command)) for command in found] == [True, False, True]
    assert complaint("tune --timeout soon")
    assert complaint("backend fly")


def test_the_readme_says_which_commands_print_no_json() -> None:
    (sentence,) = re.findall(r"^With `--json` all print JSON but (.*?)\.", README, re.M | re.S)
    without = {verb for verb in VERBS if "--json" not in parser_of(verb).format_help()}
    assert set(re.findall(r"`(\w+)`", sentence)) == without | {"backend"}  # of join alone
