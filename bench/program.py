"""C programs of the benchmarks, built with the flags of the extension."""

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FLAGS = ("-O3", "-std=gnu11", "-Wall", "-Wextra", "-fno-strict-aliasing")  # as _ring_build.py
LINES = "-g"  # callgrind tells files apart by them; the code is the same


def build(name: str, directory: Path) -> Path:
    """Compile bench/NAME.c into a directory and return the program.

    Raises SystemExit where there is no C compiler, CalledProcessError where it refuses the source.
    """
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise SystemExit("needs a C compiler (cc)")
    program = directory / name
    source = ROOT / "bench" / f"{name}.c"
    command = [compiler, *FLAGS, LINES, f"-I{ROOT / 'lbfwd'}", "-o", str(program), str(source)]
    subprocess.run(command, check=True)
    return program
