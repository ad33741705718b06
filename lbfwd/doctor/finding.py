"""What a check says: what it saw, why that matters, and the command that helps."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "broken"]


@dataclass(frozen=True)
class Finding:
    """One of a check's. ``why`` and ``fix`` are empty where it is ok.

    ``fix``: a command, with what to change in a file behind a ``#``.
    """

    check: str
    level: Level
    what: str
    why: str = ""
    fix: str = ""


def ok(check: str, what: str) -> Finding:
    """Return that all is well."""
    return Finding(check, "ok", what)


def warn(check: str, what: str, why: str, fix: str) -> Finding:
    """Return that it works, but not as well as it could, or not for long."""
    return Finding(check, "warn", what, why, fix)


def broken(check: str, what: str, why: str, fix: str) -> Finding:
    """Return that traffic is lost, or will be."""
    return Finding(check, "broken", what, why, fix)
