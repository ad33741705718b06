"""C programs in which one thread writes and another reads, as fast as they can."""

import subprocess
from pathlib import Path

from tests.packet.programs import built


def assert_never_torn(name: str, compiler: str, directory: Path) -> None:
    program = built(compiler, name, directory)
    done = subprocess.run([program], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
