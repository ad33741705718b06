"""The guide's blocks: a comment says what a block of commands or text is for.

``run: HOST …``: commands, once on each host. ``look: HOST …``: commands, again and again until
they succeed and print what the next block shows. ``file: PATH HOST …``: the block is the file.
``skip: WHY``: cannot be run in network namespaces. ``only: NAME`` in the same comment: a variant.
"""

import re
from dataclasses import dataclass, field

_FENCE = re.compile(
    r"(?:<!-- (?P<mark>[^\n]*?) -->\n)?```(?P<kind>\w*)\n(?P<text>.*?)```\n", re.DOTALL
)
_MARK = re.compile(r"(?P<verb>run|look|file|skip): (?P<rest>.*?)(?:; only: (?P<only>\w+))?")


@dataclass
class Block:
    """A block; ``shows`` are the lines of the output that the guide promises."""

    line: int
    verb: str
    rest: str
    only: str
    text: str
    shows: list[str] = field(default_factory=list)

    @property
    def hosts(self) -> list[str]:
        words = self.rest.split()
        return words[1:] if self.verb == "file" else words

    def shown_by(self, output: str) -> bool:
        """Whether the output has each promised line, in order; ``…`` stands for anything."""
        parts = [".*".join(map(re.escape, map(str.strip, line.split("…")))) for line in self.shows]
        return re.search("(?s:.*)".join(parts), re.sub(r"[ \t]+", " ", output)) is not None


def blocks(guide: str) -> list[Block]:
    """Read the guide. A block of commands without a mark, and a mark that says nothing, fail."""
    found: list[Block] = []
    for fence in _FENCE.finditer(guide):
        line = guide.count("\n", 0, fence.start()) + 1
        mark, kind, text = fence["mark"], fence["kind"], fence["text"]
        if mark is None and kind == "text" and found:
            assert found[-1].verb == "look", f"line {line}: an output of nothing"
            found[-1].shows = [re.sub(r"[ \t]+", " ", x.strip()) for x in text.splitlines() if x]
        elif mark is not None:
            said = _MARK.fullmatch(mark)
            assert said, f"line {line}: {mark}"
            found.append(Block(line, said["verb"], said["rest"], said["only"] or "", text))
        else:
            assert kind == "", f"line {line}: a block of {kind} that nobody runs"
    assert all(block.shows for block in found if block.verb == "look")
    return found
