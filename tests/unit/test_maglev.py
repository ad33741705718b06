"""Maglev tables against the slow oracle, and the properties that the paper promises."""

import random
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbfwd import maglev, ring
from tests.oracle import maglev as oracle

M = 65537
PRIMES = [n for n in range(2, 2000) if all(n % d for d in range(2, int(n**0.5) + 1))]
NAMES = st.text(min_size=1, max_size=12)
WEIGHTS = st.one_of(st.integers(0, 65535), st.sampled_from([0, 1, 1, 2, 65535]))


def table(weights: Mapping[str, int], size: int) -> list[str | None]:
    """What lbfwd makes of it: names by slot."""
    given_names = list(weights)
    names = [given_names[i] for i in maglev.rank(given_names)]
    slots = maglev.populate(names, [weights[name] for name in names], size)
    return [None if slot == maglev.NO_MEMBER else names[slot] for slot in slots]


@given(
    weights=st.dictionaries(NAMES, WEIGHTS, min_size=1, max_size=30),
    size=st.sampled_from(PRIMES),
)
@settings(max_examples=800)
def test_tables_are_the_oracles(weights: dict[str, int], size: int) -> None:
    assert table(weights, size) == oracle.table(weights, size)


@pytest.mark.parametrize("size", [2, 3, 5, 7, 65537, 655373])
def test_the_sizes_of_the_configuration(size: int) -> None:
    weights = {f"10.0.0.{n}": n % 4 for n in range(9)}
    assert table(weights, size) == oracle.table(weights, size)


@pytest.mark.parametrize("size", [2, 3, 5, 251, 997])
def test_more_backends_than_slots(size: int) -> None:
    weights = {f"b{n}": 1 + n % 3 for n in range(1000)}
    assert table(weights, size) == oracle.table(weights, size)


@pytest.mark.parametrize(
    ("weights", "size"),
    [([1], M), ([1, 2], M), (range(100), M), ([65535] + [1] * 999, 2003)],
    ids=["equal", "two", "a hundred", "one heavy"],
)
def test_a_large_pool(weights: Sequence[int], size: int) -> None:
    by_name = {f"10.{n // 250}.0.{n % 250}": weights[n % len(weights)] for n in range(1000)}
    assert table(by_name, size) == oracle.table(by_name, size)


@pytest.mark.slow
def test_a_large_pool_in_the_large_table() -> None:
    weights = {f"b{n}": 1 for n in range(1000)}
    assert table(weights, 655373) == oracle.table(weights, 655373)


@pytest.mark.slow
@pytest.mark.parametrize("backends", [1, 50])
@pytest.mark.parametrize("size", [2097143, 2097169])
def test_on_both_sides_of_the_largest_table_of_fractions(size: int, backends: int) -> None:
    weights = {f"b{n}": 1 + n % 2 for n in range(backends)}
    assert table(weights, size) == oracle.table(weights, size)


@pytest.mark.parametrize("weight", [1, 2, 3, 7, 32768, 65534, 65535])
def test_the_heaviest_weights(weight: int) -> None:
    weights = {"a": 65535, "b": weight, "c": 65535, "d": 1}
    assert table(weights, 251) == oracle.table(weights, 251)


def test_no_backend_takes_part() -> None:
    assert table({"a": 0, "b": 0}, 251) == [None] * 251
    assert table({}, 251) == [None] * 251


def test_a_backend_alone_has_every_slot() -> None:
    assert table({"a": 3, "b": 0}, 251) == ["a"] * 251


@pytest.mark.parametrize("backends", [2, 3, 10, 64, 100, 251])
def test_equal_weights_get_equal_shares(backends: int) -> None:
    for size in (251, M):
        won = maglev.shares([f"b{n}" for n in range(backends)], [7] * backends, size)
        assert sum(won) == size
        assert max(won) - min(won) <= 1


def test_weights_1_2_7_within_1_percent() -> None:
    won = maglev.shares(["a", "b", "c"], [1, 2, 7], M)
    for share, wanted in zip(won, (0.1, 0.2, 0.7), strict=True):
        assert abs(share / M - wanted) < 0.01 * wanted


def test_the_order_of_the_file_changes_nothing() -> None:
    rng = random.Random(1)
    weights = {f"10.0.{n}.1": n % 5 for n in range(40)}
    first = table(weights, 2003)
    for _ in range(5):
        shuffled = dict(rng.sample(list(weights.items()), len(weights)))
        assert list(shuffled) != list(weights)
        assert table(shuffled, 2003) == first


def test_shares_are_in_the_order_given() -> None:
    assert maglev.shares(["z", "a"], [3, 1], 101) == tuple(
        reversed(maglev.shares(["a", "z"], [1, 3], 101))
    )
    assert maglev.shares(["z", "a"], [0, 1], 101) == (0, 101)


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=3), st.integers(0, 9) | st.just(65535), max_size=9
    ),
    st.sampled_from([2, 3, 7, 31, 251]),
)
def test_shares_are_those_of_the_table(weights: dict[str, int], size: int) -> None:
    slots = Counter(oracle.table(weights, size))
    won = maglev.shares(list(weights), list(weights.values()), size)
    assert won == tuple(slots[name] for name in weights)


@pytest.mark.parametrize("gone", [0, 37, 99])
def test_removing_one_of_100_moves_little_else(gone: int) -> None:
    weights = {f"10.0.0.{n}": 1 for n in range(100)}
    before = table(weights, M)
    del weights[f"10.0.0.{gone}"]
    after = table(weights, M)
    own = Counter(before)[f"10.0.0.{gone}"]
    moved = sum(old != new for old, new in zip(before, after, strict=True))
    assert moved >= own
    assert moved - own < 0.02 * M


def test_rank_is_by_identity_bytes() -> None:
    names = ["é", "z", "Z", "10.0.0.2", "10.0.0.10", "e", "\U0001f600", "\uffff"]
    assert [names[i] for i in maglev.rank(names)] == sorted(names, key=lambda n: n.encode())
    # UTF-8 keeps the order of code points; what must not decide is UTF-16 or the locale.
    assert [names[i] for i in maglev.rank(names)][-2:] == ["\uffff", "\U0001f600"]


# MurmurHash3_x64_128, seed 0: known answers that travel with its ports (two 64-bit halves).
MURMUR = {
    "": (0, 0),
    "hello": (0xCBD8A7B341BD9B02, 0x5B1E906A48AE1D19),
    "hello, world": (0x342FAC623A5EBC8E, 0x4CDCBC079642414D),
}


@pytest.mark.parametrize(("identity", "halves"), MURMUR.items())
@pytest.mark.parametrize("size", [2, 251, M])
def test_offset_and_skip(identity: str, halves: tuple[int, int], size: int) -> None:
    offset, skip = maglev.permutation(identity, size)
    assert (offset, skip) == (halves[0] % size, halves[1] % (size - 1) + 1)


@given(identity=NAMES, size=st.sampled_from(PRIMES))
def test_a_permutation_visits_every_slot(identity: str, size: int) -> None:
    offset, skip = maglev.permutation(identity, size)
    walk = [(offset + n * skip) % size for n in range(size)]
    assert walk == list(oracle.permutation(identity, size))
    assert sorted(walk) == list(range(size))


@pytest.mark.parametrize(("offset", "skip"), [(251, 1), (0, 0), (0, 251)])
def test_an_impossible_permutation_is_refused(offset: int, skip: int) -> None:
    slots = array("H", bytes(2 * 251))
    with pytest.raises(OSError, match="populate a table of 251: Invalid argument"):
        ring.maglev_populate(slots, array("I", [offset]), array("I", [skip]), array("I", [1]))


@pytest.mark.parametrize("size", [0, 1, 4, 65536, 65535, 251 * 251, 2**24 + 43])
def test_a_size_that_is_no_prime_or_too_large_is_refused(size: int) -> None:
    slots = array("H", bytes(2 * size))
    with pytest.raises(OSError, match=f"populate a table of {size}: Invalid argument"):
        ring.maglev_populate(slots, array("I", [0]), array("I", [1]), array("I", [1]))


def test_a_weight_too_few_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[2, 2, 1\] entries: one a backend each"):
        maglev.populate(["a", "b"], [1], 251)


def test_too_many_backends_are_refused() -> None:
    names = [f"b{n}" for n in range(65536)]
    with pytest.raises(OSError, match="Invalid argument"):
        maglev.populate(names, [1] * len(names), 251)
