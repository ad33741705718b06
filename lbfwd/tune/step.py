"""What tuning changes: a setting, its value, the wanted one, and how to get there and back."""

import shlex
from dataclasses import dataclass


@dataclass(frozen=True)
class Write:
    """Write a value to a file of /proc or /sys."""

    path: str
    value: str

    def __str__(self) -> str:
        """Return it as a shell command."""
        return f"echo {shlex.quote(self.value)} > {shlex.quote(self.path)}"


@dataclass(frozen=True)
class Command:
    """Run a program."""

    argv: tuple[str, ...]

    def __str__(self) -> str:
        """Return it as a shell command."""
        return shlex.join(self.argv)


Action = Write | Command


@dataclass(frozen=True)
class Step:
    """One change. ``what``: the setting, with its interface; ``why``: what it is good for."""

    what: str
    old: str
    new: str
    why: str
    do: Action
    undo: Action


def write(what: str, path: str, values: tuple[str, str], why: str) -> Step:
    """Return the step that changes a file; ``values``: old, new."""
    old, new = values
    return Step(what, old, new, why, Write(path, new), Write(path, old))


def ethtool(what: str, arguments: tuple[str, ...], values: tuple[str, str], why: str) -> Step:
    """Return a step that calls ethtool with the new value behind ``arguments``."""
    old, new = values
    do, undo = (Command(("ethtool", *arguments, value)) for value in (new, old))
    return Step(what, old, new, why, do, undo)
