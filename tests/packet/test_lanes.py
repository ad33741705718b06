"""Four flow hashes at a time are those of siphash24, one by one."""

import random
import struct
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from tests.oracle import siphash
from tests.packet.programs import COMPILERS, built, output

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
@pytest.mark.parametrize("compiler", COMPILERS)
def test_hashes_of_four_keys_at_a_time(tmp_path: Path, compiler: str, family: int) -> None:
    rng = random.Random(family)
    secret, keys = rng.randbytes(16), [flow_key(rng, family) for _ in range(KEYS)]
    words = [in_words(key) for key in keys]
    program = built(compiler, "lanes", tmp_path)
    hashes = output(program, str(len(words[0]) // 8), stdin=secret + b"".join(words))
    assert [len(key) for key in keys] == [BYTES[family]] * KEYS
    assert [*struct.unpack(f"<{KEYS}Q", hashes)] == [siphash.flow_hash(k, secret) for k in keys]
