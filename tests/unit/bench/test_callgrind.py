"""callgrind's output, by its format's specification: what counts where."""

import shutil
import subprocess
from pathlib import Path

import pytest

from bench.callgrind import by_file, count
from bench.program import build

OUTPUT = """\
# callgrind format
events: Ir
fl=(1) /src/path.c
fn=(1) measured
10 5
fi=(2) /src/_hash.h
20 7
+3 1
fe=(1)
11 2
cfi=(2)
cfn=(2) deep
calls=1 30
12 100
fl=(2)
fn=(2)
* 4
totals: 19
"""


def test_costs_go_to_the_file_in_which_the_line_is_written() -> None:
    """Inlined lines to their header; a call's costs are the callee's own."""
    assert by_file(OUTPUT.splitlines()) == {"path.c": 7, "_hash.h": 12}


def test_our_programs_say_from_which_file_their_code_comes(tmp_path: Path) -> None:
    """Without, callgrind puts all of it under "???"."""
    assert b".debug_line" in build("generate", tmp_path).read_bytes()


PROGRAM = """\
__attribute__((noinline)) int step_add(int n)
{
    int s = 0;
    for (int i = 0; i < n; i++)
        s += i ^ s;
    return s;
}
int main(int argc, char **argv) { (void)argv; return step_add(1000 * argc) == 1; }
"""


@pytest.mark.skipif(not shutil.which("valgrind"), reason="needs valgrind")
def test_a_real_program_counts_the_same_twice(tmp_path: Path) -> None:
    """The loop has a thousand turns: more instructions than that, and not the start-up's."""
    (tmp_path / "loop.c").write_text(PROGRAM)
    subprocess.run(["gcc", "-O1", "-g", "-o", "loop", "loop.c"], cwd=tmp_path, check=True)
    command = [str(tmp_path / "loop")]
    first, second = (sum(count(command, "step_*", tmp_path / "out").values()) for _ in range(2))
    assert first == second
    assert 1000 < first < 20_000
