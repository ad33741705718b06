"""Lines → statements and blocks."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from lbfwd.importer.lines import DOUBLE_QUOTED, SINGLE_QUOTED, Line
from lbfwd.importer.note import Place, UnreadableError, short

_TOKEN = re.compile(
    rf"(?P<brace>[{{}}])|(?P<word>(?:{DOUBLE_QUOTED}|{SINGLE_QUOTED}"
    rf"|\$\{{[^}}]*\}}|[^\s{{}}\"'$]|\$)+)",
    re.DOTALL,
)
_QUOTED = re.compile(rf"{DOUBLE_QUOTED}|{SINGLE_QUOTED}", re.DOTALL)
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]+|[0-7]{1,3}|c.|.)", re.DOTALL)
_CONTROL = {"a": "\a", "b": "\b", "E": "\x1b", "f": "\f", "n": "\n", "r": "\r", "t": "\t",
            "v": "\v"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Statement:
    """Words on a line and, where it has one, the block behind them.

    ``virtual_server 192.0.2.10 80 { … }``: three words. There is at least one.
    """

    words: tuple[str, ...]
    place: Place
    block: "tuple[Statement, ...] | None" = None

    def __str__(self) -> str:
        return short(" ".join(self.words))

    @property
    def name(self) -> str:
        """The first word."""
        return self.words[0]

    @property
    def value(self) -> str:
        """The second word, or nothing."""
        return self.words[1] if len(self.words) > 1 else ""

    @property
    def inside(self) -> "tuple[Statement, ...]":
        """What its block holds."""
        return self.block or ()


class _Token(NamedTuple):
    text: str
    is_brace: bool


@dataclass
class _Open:
    """A block that is not closed yet; its last statement may still get a block."""

    words: tuple[str, ...]
    place: Place
    inside: list[Statement] = field(default_factory=list)
    can_open: bool = False


def parse(lines: Iterable[Line]) -> tuple[Statement, ...]:
    """Return the statements. Raises UnreadableError: braces that do not match."""
    stack = [_Open((), Place("", 0))]
    for line in lines:
        words: list[str] = []
        for token in _tokens(line.text):
            if not token.is_brace:
                words.append(token.text)
                continue
            _put(stack, words, line.place)
            if token.text == "{":
                _open(stack, line.place)
            else:
                _close(stack, line.place)
        _put(stack, words, line.place)
    if len(stack) > 1:
        raise UnreadableError(
            f"{stack[-1].place}: {short(' '.join(stack[-1].words))} {{: no }} closes it"
        )
    return tuple(stack[0].inside)


def _put(stack: list[_Open], words: list[str], place: Place) -> None:
    if words:
        stack[-1].inside.append(Statement(tuple(words), place))
        stack[-1].can_open = True
        words.clear()


def _open(stack: list[_Open], place: Place) -> None:
    if not stack[-1].can_open:
        raise UnreadableError(f"{place}: {{: nothing stands before it that has a block")
    stack[-1].can_open = False
    head = stack[-1].inside.pop()
    stack.append(_Open(head.words, head.place))


def _close(stack: list[_Open], place: Place) -> None:
    if len(stack) == 1:
        raise UnreadableError(f"{place}: }}: closes nothing")
    done = stack.pop()
    stack[-1].inside.append(Statement(done.words, done.place, tuple(done.inside)))


def _tokens(text: str) -> Iterator[_Token]:
    for found in _TOKEN.finditer(text):
        if found["brace"]:
            yield _Token(found[0], True)
        else:
            yield _Token(_QUOTED.sub(lambda quoted: _unquoted(quoted[0]), found[0]), False)


def _unquoted(text: str) -> str:
    inner = text[1:-1] if len(text) > 1 and text[-1] == text[0] else text[1:]
    return _ESCAPE.sub(lambda escape: _character(escape[1]), inner)


def _character(code: str) -> str:
    """Return what stands behind a backslash: a code (n, x41, 101, cA), else itself."""
    if code[0] == "x" and len(code) > 1:
        return chr(int(code[1:], 16) & 0xFF)
    if code[0] in "01234567":
        return chr(int(code, 8) & 0xFF)
    if code[0] == "c" and len(code) > 1:
        return chr(ord(code[1]) & 0x1F)
    return _CONTROL.get(code, code)
