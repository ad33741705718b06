"""Which entries of a flow's two buckets give room to a new one."""

import random
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.packet.programs import COMPILERS, built, output

CASES = 5000
ENTRIES, STATES = 8, 5
FREE = 0
AHEAD_S = 8  # another worker's clock may be so far ahead
CLOCK = 1 << 16

Entry = tuple[int, int, int]  # state, age in seconds (negative: ahead), everything below them


def entry(rng: random.Random, lifetimes_s: Sequence[int]) -> Entry:
    """Of any age, more often one around the end of its life."""
    state = rng.randrange(STATES)
    if state == FREE:
        return FREE, 0, 0
    ages = [rng.randint(-AHEAD_S, 40000), rng.randint(-AHEAD_S, 2)]
    ages.append(lifetimes_s[state] + rng.randint(-2, 2))
    return state, rng.choice(ages), rng.getrandbits(45)


def packed(one: Entry, now_s: int) -> bytes:
    """Key and value: the state at bit 45, the second at 48 (lbfwd/_flow.h)."""
    state, age, rest = one
    value = (((now_s - age) % CLOCK) << 48 | state << 45 | rest) if state else 0
    return struct.pack("<QQ", random.Random(rest).getrandbits(64), value)


def gives_room(one: Entry, lifetimes_s: Sequence[int]) -> bool:
    state, age, _ = one
    return state == FREE or age > lifetimes_s[state]


@pytest.mark.parametrize("compiler", COMPILERS)
def test_what_gives_room(tmp_path: Path, compiler: str) -> None:
    rng, cases, expected = random.Random(compiler), b"", b""
    for _ in range(CASES):
        lifetimes_s = [0, *(rng.choice([1, 5, 300, 7200, 30000]) for _ in range(7))]
        now_s = rng.randrange(CLOCK)
        entries = [entry(rng, lifetimes_s) for _ in range(ENTRIES)]
        cases += struct.pack("<8HQ", *lifetimes_s, now_s)
        cases += b"".join(packed(one, now_s) for one in entries)
        room = sum(gives_room(one, lifetimes_s) << n for n, one in enumerate(entries))
        expected += bytes([room])
    assert output(built(compiler, "vacancy", tmp_path), stdin=cases) == expected
