"""Instructions of a program's functions, counted by valgrind's callgrind: the same in every run."""

import os
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path


def count(command: Sequence[str], functions: str, out: Path) -> dict[str, int]:
    """Run a program and return the instructions by source file, its own only.

    ``functions``: what is counted, as a pattern; from their entry to their return. Raises
    SystemExit where there is no valgrind, CalledProcessError where the program fails.
    """
    valgrind = ["valgrind", "-q", "--tool=callgrind", f"--callgrind-out-file={out}"]
    options = [f"--toggle-collect={functions}"]
    try:
        subprocess.run([*valgrind, *options, *command], check=True, stdout=subprocess.DEVNULL)
    except FileNotFoundError:
        raise SystemExit("needs valgrind") from None
    return by_file(out.read_text(encoding="utf-8").splitlines())


def by_file(lines: Sequence[str]) -> dict[str, int]:
    """Sum the costs in callgrind's output by source file, inlined code by where it was written.

    Valgrind manual, "Callgrind Format Specification": ``fl=``, ``fi=`` and ``fe=`` name the file
    of the cost lines that follow, with a number for short; the line after ``calls=`` is the
    callee's cost and not counted again.
    """
    names: dict[str, str] = {}
    costs: Counter[str] = Counter()
    file, is_call = "", False
    for line in lines:
        key, _, value = line.partition("=")
        if key in ("fl", "fi", "fe", "cfi", "cfl"):
            name = _name(value, names)
            file = file if key.startswith("c") else name
        elif key == "calls":
            is_call = True
        elif line[:1] in tuple("0123456789+-*"):
            costs[os.path.basename(file)] += 0 if is_call else int(line.split()[-1])
            is_call = False
    return dict(costs)


def _name(value: str, names: dict[str, str]) -> str:
    number, _, name = value.partition(" ")
    return names.setdefault(number, name)
