"""Small C programs that call the packet path's own functions, which no one else can."""

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FLAGS = ["-std=gnu11", "-O3", "-Wall", "-Wextra", "-Werror", "-fno-strict-aliasing", "-pthread"]
COMPILERS = ("gcc", "clang")
LACKS_AVX2 = 2  # exit status


def built(compiler: str, name: str, directory: Path) -> Path:
    """Compile NAME.c of this folder. Skips the test without the compiler."""
    if not shutil.which(compiler):
        pytest.skip(f"needs {compiler}")
    program, headers = directory / name, HERE.parents[1] / "lbfwd"
    command = [compiler, *FLAGS, f"-I{headers}", "-o", program, HERE / f"{name}.c"]
    subprocess.run(command, check=True, timeout=60)
    return program


def output(program: Path, *arguments: str, stdin: bytes) -> bytes:
    """Return what it says. Skips the test on a machine without AVX2."""
    done = subprocess.run(
        [program, *arguments], input=stdin, capture_output=True, check=False, timeout=60
    )
    if done.returncode == LACKS_AVX2:
        pytest.skip("needs AVX2")
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout
