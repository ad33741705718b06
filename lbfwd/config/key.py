"""The fleet's secret: 128 bits that decide which flow goes where."""

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

DIGITS = 32
RULE = f"{DIGITS} hex digits (128 random bits, the same on every node: openssl rand -hex 16)"
_FORM = re.compile(rf"[0-9a-fA-F]{{{DIGITS}}}", re.ASCII)
_MOST_BYTES = 4096
SHORTEST_TOKEN, LONGEST_TOKEN = 16, 1024
_TOKEN = re.compile(r"[!-~]+")


class KeyFileError(Exception):
    """A file with a secret cannot be used; the text is the rule and never holds what is in it."""


@dataclass(frozen=True, slots=True, repr=False)
class HashKey:
    """The key of the flow hash (SipHash-1-3), 16 bytes in ``raw``; it never prints itself."""

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != DIGITS // 2:
            raise ValueError(f"a hash_key of {len(self.raw)} bytes: it needs {DIGITS // 2}")

    def __repr__(self) -> str:
        return "HashKey(hidden)"


def parse_key(text: object) -> HashKey:
    """Read 32 hex digits. Raises ValueError with the rule, never with the value."""
    if not isinstance(text, str) or not _FORM.fullmatch(text):
        raise ValueError(RULE)
    return HashKey(bytes.fromhex(text))


def read_key_file(path: Path) -> HashKey:
    """Read a file that holds 32 hex digits and that nobody else can read. Raises KeyFileError."""
    try:
        return parse_key(read_secret(path))
    except ValueError as error:
        raise KeyFileError(f"the file must hold {error}") from None


def read_secret(path: Path) -> str:
    """Read the text of a small file that nobody else can read, without the space around it.

    Raises KeyFileError when it cannot be read, is no regular file, belongs to another user than
    us or root, or can be read or written by group or others.
    """
    try:
        with open_at_once(path) as file:
            _check_access(os.fstat(file.fileno()))
            content = file.read(_MOST_BYTES)
    except OSError as error:
        raise KeyFileError(f"cannot be read: {error.strerror}") from None
    except ValueError:
        raise KeyFileError("a path cannot hold a null character") from None
    return content.decode("utf-8", "replace").strip()


def read_token(path: Path) -> str:
    """Read the token of a pool: a file as of ``read_secret``, one line. Raises KeyFileError."""
    return _token(read_secret(path))


def read_tokens(path: Path) -> tuple[str, ...]:
    """Read the tokens that are good for a pool: one a line, two while one is being exchanged.

    Raises KeyFileError as ``read_token``.
    """
    return tuple(_token(line.strip()) for line in read_secret(path).split("\n"))


def _token(text: str) -> str:
    if not SHORTEST_TOKEN <= len(text) <= LONGEST_TOKEN or not _TOKEN.fullmatch(text):
        raise KeyFileError(
            f"the file must hold a token of {SHORTEST_TOKEN} to {LONGEST_TOKEN} visible ASCII"
            " characters without spaces (openssl rand -hex 32)"
        )
    return text


def open_at_once(path: Path) -> BinaryIO:
    """Open a file for reading; a FIFO without a writer does not hold us up."""
    return open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))


def _check_access(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise KeyFileError("must be a regular file")
    if status.st_uid not in (0, os.geteuid()):
        raise KeyFileError(f"must belong to root or to us, not to user {status.st_uid}")
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        raise KeyFileError(f"group and others must have no access (mode {mode:04o}): chmod 0600")
