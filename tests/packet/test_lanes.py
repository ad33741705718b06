"""Four flow hashes at a time are those of siphash24, one by one."""

import random
import shutil
import struct
import subprocess
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from tests.oracle import siphash

KEYS = 4000
BYTES = {4: 13, 6: 37}


def flow_key(rng: random.Random, family: int) -> bytes:
    """A key of any flow."""
    if family == 4:
        source, target = (IPv4Address(rng.getrandbits(32)) for _ in range(2))
        return siphash.flow_key(source, target, *ports(rng), rng.getrandbits(8))
    first, second = (IPv6Address(rng.getrandbits(128)) for _ in range(2))
    return siphash.flow_key(first, second, *ports(rng), rng.getrandbits(8))


def ports(rng: random.Random) -> tuple[int, int]:
    return rng.getrandbits(16), rng.getrandbits(16)


def in_words(key: bytes) -> bytes:
    """As SipHash reads it: its length is the last byte of its last word."""
    return key.ljust(len(key) // 8 * 8 + 7, b"\0") + bytes([len(key)])


@pytest.mark.parametrize("family", BYTES)
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_hashes_of_four_keys_at_a_time(tmp_path: Path, compiler: str, family: int) -> None:
    if not shutil.which(compiler):
        pytest.skip(f"needs {compiler}")
    program, source = tmp_path / "lanes", Path(__file__).with_name("lanes.c")
    flags = ["-std=gnu11", "-O3", "-Wall", "-Wextra", "-Werror", "-fno-strict-aliasing"]
    headers = Path(__file__).parents[2] / "lbfwd"
    subprocess.run(
        [compiler, *flags, f"-I{headers}", "-o", program, source], check=True, timeout=60
    )
    rng = random.Random(family)
    secret, keys = rng.randbytes(16), [flow_key(rng, family) for _ in range(KEYS)]
    words = [in_words(key) for key in keys]
    done = subprocess.run(
        [program, str(len(words[0]) // 8)],
        input=secret + b"".join(words),
        capture_output=True,
        check=False,
        timeout=60,
    )
    if done.returncode == 2:
        pytest.skip("needs AVX2")
    assert (done.returncode, done.stderr) == (0, b"")
    assert [len(key) for key in keys] == [BYTES[family]] * KEYS
    assert [*struct.unpack(f"<{KEYS}Q", done.stdout)] == [
        siphash.flow_hash(k, secret) for k in keys
    ]
