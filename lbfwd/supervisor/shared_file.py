"""The last shared part that was taken up from etcd, on disk: what a node starts from without etcd.

TOML as it was pushed, below one line that says which revision it is.
"""

import re
from pathlib import Path

from lbfwd.config.shared import Shared
from lbfwd.supervisor.operations import replace

FILE = "shared.toml"
_HEADLINE = "# lbfwd took this up from etcd at revision {}, and starts from it when etcd is away.\n"
_HEAD = re.compile(re.escape(_HEADLINE).replace(r"\{\}", r"(\d{1,19})"))


def load(file: Path) -> Shared | None:
    """Read what was kept; None: there is none. Blocks. Raises OSError or ValueError."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    head = _HEAD.match(text)
    if head is None:
        raise ValueError(f"{file}: its first line is not lbfwd's")
    return Shared(text[head.end() :], str(file), int(head[1]))


def save(file: Path, shared: Shared) -> None:
    """Keep it, as a whole or not at all. Blocks. Raises OSError."""
    file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    replace(file, f"{_HEADLINE.format(shared.revision)}{shared.text}")
