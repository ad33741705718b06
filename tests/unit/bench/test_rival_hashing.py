"""The methods that the paper compares with: they promise what their papers promise."""

import pytest

np = pytest.importorskip("numpy", reason="numpy is missing: pip install 'lbfwd[bench]'")

from bench.rival_hashing import Table, imbalance, karger, rendezvous  # noqa: E402

ALL = np.arange(50)
GONE = 17


def by_karger(backends: "np.ndarray", size: int, seed: int) -> Table:
    return karger(backends, size, 100, seed)


@pytest.mark.parametrize("method", [by_karger, rendezvous])
def test_only_the_entries_of_a_backend_that_goes_change(method: object) -> None:
    before, after = (method(backends, 2003, 1) for backends in (ALL, ALL[ALL != GONE]))
    assert np.array_equal(before != after, before == GONE)
    assert GONE in before


@pytest.mark.parametrize("method", [by_karger, rendezvous])
def test_every_seed_gives_another_table_and_the_same_seed_the_same(method: object) -> None:
    first, again, other = (method(ALL, 2003, seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert np.mean(first != other) > 0.9


def test_rendezvous_shares_are_binomial() -> None:
    shares = np.bincount(rendezvous(ALL, 50021, 3), minlength=50)
    deviation = shares.std() / (50021 / 50 * (1 - 1 / 50)) ** 0.5
    assert 0.7 < deviation < 1.3  # six sigma of the deviation of 50 shares would be 0.6


def test_a_place_without_points_is_the_next_ones() -> None:
    table = karger(np.array([4, 9]), 1009, 1, 5)
    assert sorted(set(table)) == [4, 9]
    assert np.count_nonzero(table != np.roll(table, 1)) == 2, "two points make two arcs"


def test_the_first_point_of_a_place_wins() -> None:
    # One place, so many points: the first of all is the first backend's.
    assert karger(np.array([7, 3]), 1, 100, 0).tolist() == [7]


def test_imbalance_is_relative_to_the_average() -> None:
    table = np.array([0, 0, 0, 1, 2, 2], dtype=np.int32)
    assert imbalance(table, 3) == pytest.approx((-0.5, 0.5))
