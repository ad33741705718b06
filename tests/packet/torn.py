"""C programs in which one thread writes and another reads, as fast as they can."""

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FLAGS = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-fno-strict-aliasing", "-pthread"]


def assert_never_torn(source: str, compiler: str, directory: Path) -> None:
    if not shutil.which(compiler):
        pytest.skip(f"needs {compiler}")
    program, sources = directory / "torn", HERE.parents[1] / "lbfwd"
    command = [compiler, *FLAGS, f"-I{sources}", "-o", program, HERE / source]
    subprocess.run(command, check=True, timeout=60)
    done = subprocess.run([program], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
