"""The figures in the documents are those of the results."""

import pytest

from bench import document
from bench.__main__ import BENCHMARKS


def test_documents_say_what_the_results_say() -> None:
    """`python -m bench.document` would change nothing."""
    for (path, name), block in document.blocks(document.results()).items():
        text = path.read_text(encoding="utf-8")
        assert document.replaced(text, name, block) == text, f"{path}: {document.begin(name)}"


def test_a_block_replaces_what_stands_between_its_marks() -> None:
    text = f"a\n{document.begin('path')}\nold\n{document.END}\nb\n"
    once = document.replaced(text, "path", "new\n")
    assert "old" not in once
    assert once.startswith("a\n")
    assert once.endswith("b\n")
    assert document.replaced(once, "path", "new\n") == once


def test_all_benchmarks_are_run_whose_figures_stand_in_documents() -> None:
    named = {name for _, name in document.blocks(document.results())} - {""}
    assert named - set(BENCHMARKS) == set()


def test_few_rounds_are_told() -> None:
    """In the table of targets only of those that have some."""
    found = {
        "one": {"bench": "one", "rounds": 1, "targets": [{}]},
        "two": {"bench": "two", "rounds": 2, "targets": []},
        "five": {"bench": "five", "rounds": 5, "targets": [{}]},
    }
    assert "little: two: 2." in document.few_rounds(found, "two")
    assert not document.few_rounds(found, "five")
    assert "little: one: 1." in document.few_rounds(found, "")


@pytest.mark.parametrize("text", ["no marks", document.begin("path") * 2 + document.END])
def test_marks_must_be_there_once(text: str) -> None:
    with pytest.raises(ValueError, match="once"):
        document.replaced(text, "path", "new")
