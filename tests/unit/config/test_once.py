"""What is said again is the same object again; what only looks the same is checked."""

from pathlib import Path

import pytest

from lbfwd.config import Config, ConfigError
from lbfwd.config.load import read
from lbfwd.config.once import Memo
from tests.unit.config.samples import GOOD, accepted, change

PLACE = Path("lb.toml")


def again(memo: Memo, text: str = GOOD) -> Config:
    return read(text, PLACE, memo=memo)


def test_an_equal_file_gives_the_same_pools() -> None:
    memo = Memo()
    first, second = again(memo), again(memo, GOOD + "\n# a comment\n")
    assert first == second == accepted(GOOD)
    assert first.pools[0] is second.pools[0]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('name = "b", address', 'name = "c", address'),
        ('"10.0.0.12"', '"10.0.0.13"'),
        ('"10.0.0.12" }', '"10.0.0.12", weight = 2 }'),
        ('name = "b", ', ""),
    ],
)
def test_one_backend_is_another_and_the_rest_stay(old: str, new: str) -> None:
    memo, text = Memo(), change(old, new)
    first, second = again(memo), again(memo, text)
    assert second == accepted(text)
    assert second.pools[0].backends[0] is first.pools[0].backends[0]
    assert second.pools[0].backends[1] != first.pools[0].backends[1]


def test_backends_may_change_places() -> None:
    memo, text = Memo(), change('"10.0.0.11" }', '"10.0.0.9" }, { address = "10.0.0.11" }')
    first, second = again(memo), again(memo, text)
    assert second == accepted(text)
    moved = zip(first.pools[0].backends, second.pools[0].backends[1:], strict=True)
    assert all(old is new for old, new in moved)


def test_equal_backends_of_two_pools_are_one_object() -> None:
    text = GOOD + '[[pool]]\nname = "other"\nbackends = [{ address = "10.0.0.11" }]\n'
    one, other = again(Memo(), text).pools
    assert one.backends[0] is other.backends[0]


@pytest.mark.parametrize("weight", ["true", "1.0", '"1"', "[1]"])
def test_what_equals_a_good_weight_is_refused_as_ever(weight: str) -> None:
    memo = Memo()
    again(memo, change('"10.0.0.12" }', '"10.0.0.12", weight = 1 }'))
    text = change('"10.0.0.12" }', f'"10.0.0.12", weight = {weight} }}')
    with pytest.raises(ConfigError) as caught:
        again(memo, text)
    with pytest.raises(ConfigError) as without:
        accepted(text)
    assert caught.value.problems == without.value.problems


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"10.0.0.12" }', '"10.0.0.12", wieght = 1 }'),
        ('"10.0.0.12" }', '"10.0.0.11" }'),
        ('name = "b"', 'name = "10.0.0.11"'),
        ('{ name = "b", address = "10.0.0.12" }', "7"),
        ('{ name = "b", address = "10.0.0.12" }', "{ name = [1], address = {} }"),
        ('"192.0.2.10"', '"10.0.0.11"'),
    ],
)
def test_problems_are_the_same_whatever_was_read_before(old: str, new: str) -> None:
    memo, text = Memo(), change(old, new)
    good = again(memo)
    with pytest.raises(ConfigError) as caught:
        again(memo, text)
    with pytest.raises(ConfigError) as without:
        accepted(text)
    assert caught.value.problems == without.value.problems
    assert again(memo).pools[0] is good.pools[0], "what was refused is not remembered"


def test_what_is_only_looked_at_changes_nothing_of_what_is_remembered() -> None:
    memo = Memo()
    running = again(memo)
    planned = again(memo.apart(), GOOD.replace("10.0.0.12", "10.0.0.13"))
    assert planned.pools != running.pools
    assert all(a is b for a, b in zip(again(memo).pools, running.pools, strict=True))
