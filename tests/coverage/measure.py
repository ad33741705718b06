"""Line coverage of the C step headers by the packet tests: ``python -m tests.coverage.measure``.

Builds an instrumented copy of the package in a temporary directory (gcc, gcov), runs the packet
tests against it, and prints which lines of which header no test reached.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
COPIED = ("lbfwd", "workers", "tests", "docs", "pyproject.toml", "setup.py")
TESTS = ("tests/packet", "tests/unit/test_shared.py")
# What a packet passes from ring to ring. Not: set-up of sockets, tables, decapsulation.
NOT_STEPS = {"_ring.h", "_fleet.h", "_contract.h", "_socket.h", "_maglev.h", "_decap.h"}
LEAST = 0.95
BUILD_S, TESTS_S = 120, 900

Lines = dict[int, int]  # line number -> how often it ran


def copy_with_counters(directory: Path) -> None:
    """Copy the tree and build its extension so that it counts lines."""
    ignored = shutil.ignore_patterns("*.so", "__pycache__", "corpus")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, directory / name, ignore=ignored)
        elif source.exists():
            shutil.copy(source, directory / name)
    recipe = directory / "lbfwd" / "_ring_build.py"
    text = recipe.read_text(encoding="utf-8")
    assert text.count('"-O3"') == 1
    counters = '"-O0", "--coverage", "-fprofile-update=atomic"'
    text = text.replace('"-O3"', counters).replace(
        "extra_compile_args=", 'extra_link_args=["--coverage"],\n    extra_compile_args='
    )
    recipe.write_text(text, encoding="utf-8")
    (directory / "README.md").touch()
    build = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    subprocess.run(build, cwd=directory, check=True, timeout=BUILD_S, capture_output=True)


def run_tests(directory: Path) -> None:
    """Run the packet tests on the copy. CalledProcessError: one has failed."""
    # Hypothesis keeps its database where it is started; here that is thrown away.
    command = [sys.executable, "-m", "pytest", "-q", "-x", *TESTS]
    subprocess.run(command, cwd=directory, check=True, timeout=TESTS_S)


def merged(reports: Iterable[Mapping[str, object]]) -> dict[str, Lines]:
    """By header, how often each line ran, over all sources that include it."""
    found: dict[str, Lines] = {}
    for report in reports:
        files = report["files"]
        assert isinstance(files, list)
        for file in files:
            name = Path(file["file"]).name
            lines = found.setdefault(name, {})
            for line in file["lines"]:
                number = line["line_number"]
                lines[number] = lines.get(number, 0) + line["count"]
    return {n: found[n] for n in sorted(found) if n.endswith(".h") and n not in NOT_STEPS}


def read_counters(directory: Path) -> dict[str, Lines]:
    """Read what the instrumented extension counted."""
    data = sorted(directory.rglob("*.gcda"))
    assert data, "the instrumented extension was not loaded"
    reports = []
    for file in data:
        command = ["gcov", "--json-format", "--stdout", str(file)]
        done = subprocess.run(command, cwd=directory, check=True, capture_output=True, text=True)
        reports += [json.loads(line) for line in done.stdout.splitlines() if line]
    return merged(
        {"files": [f for f in report["files"] if (ROOT / "lbfwd" / Path(f["file"]).name).exists()]}
        for report in reports
    )


def share(lines: Lines) -> float:
    """Return the part of the lines that ran."""
    return sum(count > 0 for count in lines.values()) / len(lines)


def measure() -> dict[str, Lines]:
    """Build, run, read: by header, how often each line ran."""
    with tempfile.TemporaryDirectory(prefix="lbfwd-coverage-") as name:
        directory = Path(name)
        copy_with_counters(directory)
        run_tests(directory)
        return read_counters(directory)


def total(headers: Mapping[str, Lines]) -> float:
    """Return the part of all headers' lines that ran."""
    counts = [count for lines in headers.values() for count in lines.values()]
    return sum(count > 0 for count in counts) / len(counts)


def rows(headers: Mapping[str, Lines]) -> list[str]:
    """One row a header, with the lines that nobody reached, and one for all."""
    table = []
    for name, lines in headers.items():
        missed = " ".join(str(number) for number, count in sorted(lines.items()) if not count)
        table.append(f"{name:14} {share(lines):7.1%} of {len(lines):3} lines  {missed}".rstrip())
    count = sum(map(len, headers.values()))
    return [*table, f"{'all':14} {total(headers):7.1%} of {count} lines"]


def main() -> int:
    """Print the table; 1 when too little was reached."""
    headers = measure()
    sys.stdout.write("\n".join(rows(headers)) + "\n")
    return 0 if total(headers) >= LEAST else 1


if __name__ == "__main__":
    sys.exit(main())
