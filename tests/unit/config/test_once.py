"""What is said again is the same object again; what only looks the same is checked."""

from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbfwd.config import Config, ConfigError, Pool, Problem
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


def test_what_no_file_says_is_never_taken_for_something_else() -> None:
    reading = Memo().reading()
    for text in ("10.0.0.1", "10.0.0.2"):
        said = {"name": "p", "backends": [{"address": ip_address(text)}]}
        assert str(Pool.model_validate(said, context=reading).backends[0].address) == text


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
        ('"10.0.0.12"', '"192.0.2.10"'),
        ('"10.0.0.12" }', '"10.0.0.12" }, { name = "c", address = "10.0.0.11" }'),
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


NAMES = st.sampled_from(["a", "b", "10.0.0.1", "-bad"])
ADDRESSES = st.sampled_from(["10.0.0.1", "10.0.0.2", "192.0.2.1", "nonsense"])
BACKENDS = st.lists(
    st.fixed_dictionaries({"address": ADDRESSES}, optional={"name": NAMES}), min_size=1, max_size=3
)
FILES = st.tuples(
    BACKENDS,
    BACKENDS,
    st.lists(st.sampled_from(["192.0.2.1", "192.0.2.2", "10.0.0.2"]), min_size=1, max_size=2),
)


def written(first: list[dict[str, str]], second: list[dict[str, str]], vips: list[str]) -> str:
    def table(backend: dict[str, str]) -> str:
        return "{ " + ", ".join(f'{key} = "{value}"' for key, value in backend.items()) + " }"

    pools = "".join(
        f'[[pool]]\nname = "{name}"\nbackends = [{", ".join(map(table, backends))}]\n'
        for name, backends in (("web", first), ("other", second))
    )
    services = "".join(
        f'[[service]]\nvip = "{vip}"\nprotocol = "tcp"\nport = {80 + n}\npool = "web"\n'
        for n, vip in enumerate(vips)
    )
    return GOOD[: GOOD.index("[[pool]]")] + pools + services


def read_as(text: str, memo: Memo | None) -> Config | tuple[Problem, ...]:
    try:
        return read(text, PLACE, memo=memo)
    except ConfigError as error:
        return error.problems


@given(st.lists(FILES, min_size=2, max_size=6))
@settings(max_examples=200, deadline=None)
def test_file_after_file_gives_what_each_gives_by_itself(
    files: list[tuple[list[dict[str, str]], list[dict[str, str]], list[str]]],
) -> None:
    memo = Memo()
    for file in files:
        text = written(*file)
        assert read_as(text, memo) == read_as(text, None)
