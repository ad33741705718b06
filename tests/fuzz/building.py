"""Compiles a C program of this folder around the packet path, with clang's sanitizers."""

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
COMPILE_TIMEOUT_S = 120
FLAGS = [
    *["-std=gnu11", "-g", "-O1", "-fno-strict-aliasing"],
    *["-Wall", "-Wextra", "-Werror", "-Wno-gnu", "-fno-sanitize-recover=all"],
]


def build(name: str, directory: Path, sanitizers: str, root: Path = ROOT) -> Path:
    """Return the program made of ``name``.c of a source tree; skips where something is missing."""
    if not shutil.which("clang"):
        pytest.skip("needs clang")
    program = directory / name
    source = ["-o", str(program), str(root / "tests" / "fuzz" / f"{name}.c")]
    done = subprocess.run(
        ["clang", *FLAGS, f"-fsanitize={sanitizers}", f"-I{root / 'lbfwd'}", *source],
        capture_output=True,
        text=True,
        check=False,
        timeout=COMPILE_TIMEOUT_S,
    )
    if "libclang_rt" in done.stderr and "No such file" in done.stderr:
        pytest.skip(f"needs clang's runtime for -fsanitize={sanitizers}")
    assert (done.returncode, done.stderr) == (0, "")
    return program
