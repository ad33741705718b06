"""Lines, words and blocks as keepalived.conf(5) describes them; its own examples."""

from pathlib import Path

import pytest

from lbfwd.importer.lines import Line, expand, uncommented
from lbfwd.importer.note import Notes, Place, UnreadableError
from lbfwd.importer.source import gather
from lbfwd.importer.tree import Statement, parse


def lines(text: str) -> list[Line]:
    return [Line(line, Place("k", n)) for n, line in enumerate(text.split("\n"), 1)]


def expanded(text: str, config_id: str | None = "main") -> list[str]:
    return [line.text for line in expand(lines(text), config_id, Notes())]


def plain(statement: Statement) -> object:
    words = list(statement.words)
    return words if statement.block is None else (words, [plain(s) for s in statement.block])


def tree(text: str) -> list[object]:
    return [plain(s) for s in parse(expand(lines(text), None, Notes()))]


@pytest.mark.parametrize(
    ("line", "rest"),
    [
        ("a b # c", "a b"),
        ("a! b", "a"),
        ('a "b # c" d ! e', 'a "b # c" d'),
        ("a 'b ! \" c' # d", "a 'b ! \" c'"),
        (r'a "b \" # c" # d', r'a "b \" # c"'),
        ("# a", ""),
        ('a "b # c', 'a "b # c'),
        ('a "b \\', 'a "b \\'),
    ],
)
def test_comments(line: str, rest: str) -> None:
    assert uncommented(line) == rest


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('abcd" efg h jkl "mnop', ["abcd efg h jkl mnop"]),
        ('abcd "efg h jkl" mnop', ["abcd", "efg h jkl", "mnop"]),
        (r'a "\x41\101\n\"\\"', ["a", 'AA\n"\\']),
        ("a '{ }' \"\"", ["a", "{ }", ""]),
        ("a ${_PWD}/b$c", ["a", "${_PWD}/b$c"]),
        ('a "b', ["a", "b"]),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert tree(text) == [words]


@pytest.mark.parametrize(
    "text",
    [
        "a 1 {\n b 2\n c {\n d\n}\n}",
        "a 1\n{\n\n b 2\n c\n{ d }\n}",
        "a 1{b 2\nc{d}}",
        "a 1 { # x\n b 2 ! y\n c { d\n } }",
    ],
)
def test_blocks_in_all_layouts(text: str) -> None:
    assert tree(text) == [(["a", "1"], [["b", "2"], (["c"], [["d"]])])]


def test_a_block_that_nobody_closes_is_named_by_its_line() -> None:
    with pytest.raises(UnreadableError, match=r"^k:2: b 2 \{: no \} closes it"):
        tree("a 1\nb 2 {\nc")


def test_conditions() -> None:
    text = "@main a\n@backup b\n@^main c\n@^backup d"
    assert expanded(text) == ["a", "d"]
    notes = Notes()
    assert not list(expand(lines(text), None, notes))
    assert [note.place.line for note in notes.made] == [1, 2, 3, 4]


def test_parameters_are_replaced_when_they_are_used() -> None:
    text = """$ADDRESS_BASE=10.2.${ADDRESS_BASE_SUB}
$ADDRESS_BASE_SUB=0
${ADDRESS_BASE}.100/32
$ADDRESS_BASE_SUB=10
${ADDRESS_BASE}.100/32
$ADDRESS_BASE.100/32 ${UNDEFINED} $ADDRESS_BASE_SUB
@main $PRIORITY=240
@backup $PRIORITY=200
priority $PRIORITY
$IF_BACKUP=@backup
$IF_BACKUP priority 1"""
    assert expanded(text) == [
        "10.2.0.100/32",
        "10.2.10.100/32",
        "$ADDRESS_BASE.100/32 ${UNDEFINED} 10",
        "priority 240",
    ]


def test_parameters_of_several_lines() -> None:
    text = """$RS= \\
real_server 192.168.${VS}.${N} 80 { \\
  weight 1 \\
}
$BOTH= \\
$N=1 \\
$RS \\
$N=2 \\
$RS
$VS=7
$BOTH
after"""
    got = expanded(text)
    assert got == [
        "real_server 192.168.7.1 80 {", "weight 1", "}",
        "real_server 192.168.7.2 80 {", "weight 1", "}",
        "after",
    ]  # fmt: skip


def test_sequences_are_named() -> None:
    notes = Notes()
    assert not list(expand(lines("~SEQ(N, 0, 3) ip 10.0.${N}.1\n~LST(N, 1) a"), None, notes))
    assert [str(note).split(": ")[0] for note in notes.made] == ["k:1", "k:2"]


def test_included_files_stand_in_the_place_of_the_include(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "k").write_text('a\ninclude d/*.conf # all\nb\ninclude "none"\nincludea d/{x,y}')
    (tmp_path / "d" / "1.conf").write_bytes(b"one \xff\r\ninclude 2.txt\n")
    (tmp_path / "d" / "2.txt").write_text("two")
    notes = Notes()
    got = [(line.text, line.place.line) for line in gather(tmp_path / "k", notes) if line.text]
    assert got == [("a", 1), ("one \ufffd", 1), ("two", 1), ("b", 3)]
    assert [(note.place.line, note.why) for note in notes.made] == [
        (4, "no such file"),
        (5, "braces in file names are not followed"),
    ]
