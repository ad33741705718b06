"""The house rules that a linter does not know, and what the documents promise."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbfwd import config

ROOT = Path(__file__).parents[2]
PYTHON = sorted(p for room in ("lbfwd", "workers", "bench") for p in (ROOT / room).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
C = sorted(
    p
    for p in [*(ROOT / "lbfwd").glob("_*.[ch]"), *(ROOT / "bench").glob("*.c")]
    if p.name != "_ringlib.c"
)
PYTHON_FUNCTION_LINES = 30
C_FUNCTION_LINES = 40
FILE_LINES = 400
HASH_KEY = bytes(16)


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def python_functions(text: str) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1


def c_functions(text: str) -> Iterator[tuple[str, int]]:
    """Functions as the house writes them: both braces at the beginning of a line."""
    for found in re.finditer(r"^(?P<head>\w[^;{}#]*\))\n\{\n.*?^\}$", text, re.M | re.S):
        signature = found["head"].splitlines()[0]
        yield signature, found[0].count("\n") + 1


@pytest.mark.parametrize("path", PYTHON, ids=name)
def test_python_functions_are_short(path: Path) -> None:
    long = {f: n for f, n in python_functions(path.read_text()) if n > PYTHON_FUNCTION_LINES}
    assert not long


@pytest.mark.parametrize("path", C, ids=name)
def test_c_functions_are_short(path: Path) -> None:
    long = {f: n for f, n in c_functions(path.read_text()) if n > C_FUNCTION_LINES}
    assert not long


def test_the_counters_of_functions_count() -> None:
    # Without this, a change of style could make the two tests above look at nothing.
    assert dict(python_functions("def f():\n    a\n    b\n")) == {"f": 3}
    assert dict(c_functions("static int f(int a,\n             int b)\n{\n    a;\n}\n")) == {
        "static int f(int a,": 5
    }
    ring = (ROOT / "lbfwd/_ring.c").read_text()
    assert len(list(c_functions(ring))) == len(re.findall(r"^\{$", ring, re.M))


@pytest.mark.parametrize("path", [*PYTHON, *TESTS, *C], ids=name)
def test_files_are_short(path: Path) -> None:
    lines = path.read_text().count("\n")
    assert lines <= FILE_LINES


def test_every_package_is_installed() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        named = set(tomllib.load(file)["tool"]["setuptools"]["packages"])
    rooms = {p.parent.relative_to(ROOT) for p in (ROOT / "lbfwd").rglob("__init__.py")}
    assert named == {".".join(room.parts) for room in rooms} | {"lbfwd.workers"}


def drop_reasons() -> list[str]:
    header = (ROOT / "lbfwd/_ring.h").read_text()
    (body,) = re.findall(r"enum lbfwd_drop \{(.*?)\};", header, re.S)
    names = re.findall(r"^\s*LBFWD_DROP_(\w+),?", body, re.M)
    return [n.lower() for n in names if n not in ("NONE", "COUNT")]


def test_every_drop_reason_is_documented_in_order() -> None:
    text = (ROOT / "docs/drop-reasons.md").read_text()
    assert re.findall(r"^\| `(\w+)` \|", text, re.M) == drop_reasons()


def test_the_configuration_in_the_readme_is_one() -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    parsed = config.parse(example, "README.md", hash_key=HASH_KEY)
    assert [service.pool for service in parsed.services] == ["web", "web"]


DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_documents_point_at_files_that_exist(path: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)[)#]", path.read_text())
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_every_verb_of_the_command_line_is_in_the_readme() -> None:
    from lbfwd.cli.main import VERBS

    text = (ROOT / "README.md").read_text()
    assert [verb for verb in VERBS if f"`lbfwd {verb}" not in text] == []
