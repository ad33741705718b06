"""The fuzz targets on the corpus, and for a while on what they make of it."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fuzz import config_fuzz, state
from tests.fuzz.building import HERE, ROOT, build

CORPUS = HERE / "corpus"
LONGEST = 16000  # bytes of an input
SPARE_S = 60  # beyond the time that was asked for
CONFIG_SEED = 20

pytestmark = pytest.mark.fuzz


@dataclass(frozen=True)
class Target:
    """The packet path's target, and the directory of the state that it forwards with."""

    program: Path
    directory: Path

    def run(
        self, *arguments: str, timeout_s: float = SPARE_S
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [str(self.program), f"-artifact_prefix={self.directory}/", *arguments],
            env=os.environ | {"LBFWD_FUZZ_STATE": str(self.directory)},
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    directory = tmp_path_factory.mktemp("path")
    program = build("path", directory, "fuzzer,address,undefined")
    tables = state.publish(directory)
    yield Target(program, directory)
    tables.close(unlink=True)


def executions(output: str) -> int:
    (count,) = re.findall(r"^Done (\d+) runs", output, re.M)
    return int(count)


def test_the_corpus(target: Target) -> None:
    files = list(CORPUS.iterdir())
    done = target.run("-runs=0", str(CORPUS))
    assert done.returncode == 0, done.stderr[-4000:]
    assert executions(done.stderr) >= len(files) > 50


def test_the_packet_path(target: Target, fuzz_seconds: int, tmp_path: Path) -> None:
    grown = shutil.copytree(CORPUS, tmp_path / "corpus")
    limits = [f"-max_total_time={fuzz_seconds}", f"-max_len={LONGEST}"]
    done = target.run(*limits, str(grown), timeout_s=fuzz_seconds + SPARE_S)
    assert done.returncode == 0, done.stderr[-4000:]
    assert executions(done.stderr) > 1000


def test_the_configuration(fuzz_seconds: int) -> None:
    summary = config_fuzz.fuzz(fuzz_seconds, CONFIG_SEED)
    assert summary["executions"] > 200
    assert summary["accepted"] > 20
    assert summary["rules"] > 20


# ---- the invariants themselves: a checker that accepts everything would find nothing ----

WRONG = {
    "a frame counted twice": (
        "_ring.c",
        "        tx_count_drop(w->counters, reason, 1);\n",
        "        tx_count_drop(w->counters, reason, 2);\n",
    ),
    "an outer length off by one": (
        "_encap.h",
        "(uint16_t)(ip_length + IPV4_BYTES + GRE_BYTES)",
        "(uint16_t)(ip_length + IPV4_BYTES + GRE_BYTES + 1)",
    ),
    "a segment with the checksum of the super-frame": (
        "_segment.h",
        "    memset(tcp + 16, 0, 2);\n",
        "    return;\n    memset(tcp + 16, 0, 2);\n",
    ),
    "a fragment with the offset of another": ("_split.h", "+ from / 8)", "+ from / 8 + 1)"),
    "an error that quotes too much": ("_reply.h", "ICMP6_MOST 1280", "ICMP6_MOST 1296"),
    "a reset with a wrong checksum": (
        "_reply.h",
        "    tcp[13] = TCP_RST;",
        "    tcp[14] = TCP_RST;",
    ),
    "a packet larger than the tunnel": (
        "_emit.h",
        "wrapped > (uint32_t)ETHERNET_BYTES + path->mtu",
        "0",
    ),
    "a plain packet that is longer than its frame": (
        "_plain.h",
        "ip[0] != IPV4_PLAIN || length > available",
        "ip[0] != IPV4_PLAIN || length > available + UINT16_MAX",
    ),
    "a byte behind the frame": ("_bytes.h", "cursor->left < n", "cursor->left + 1 < n"),
}
COPIED = ("lbfwd", "tests/fuzz")


def broken(what: str) -> tuple[str, str]:
    """The file, and its text with the fault in it."""
    file, old, new = WRONG[what]
    text = (ROOT / "lbfwd" / file).read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{old!r} must stand in {file} once"
    return file, text.replace(old, new)


@pytest.mark.parametrize("what", WRONG)
def test_what_is_broken_below_is_still_there(what: str) -> None:
    """Who changes the packet path hears of it now, not from the slow tests."""
    broken(what)


@pytest.mark.slow
@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_path_is_noticed(what: str, tmp_path: Path, target: Target) -> None:
    """The corpus alone shows each of these."""
    for name in COPIED:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.so", "*.py"))
    file, text = broken(what)
    (tmp_path / "lbfwd" / file).write_text(text, encoding="utf-8")
    program = build("path", tmp_path, "fuzzer,address,undefined", tmp_path)
    done = Target(program, target.directory).run("-runs=0", str(CORPUS))
    assert done.returncode != 0
    assert re.search("not so: |ERROR: AddressSanitizer|runtime error: ", done.stderr)
