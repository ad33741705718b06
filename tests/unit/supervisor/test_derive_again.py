"""Derived from the last state it is the same as from nothing; what did not change is kept."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbfwd.config import Config, IPAddress, parse
from lbfwd.health.standing import BackendKey, Standing, Standings
from lbfwd.net.resolve import Resolution
from lbfwd.supervisor.state import State, derive
from tests.unit.supervisor.build import hop, link, resolved

POOLS = ("p", "q", "r")
NAMES = ("a", "b", "c")
ETH = [link("eth1", 3), link("eth2", 4)]
WORLDS = st.lists(
    st.tuples(
        st.fixed_dictionaries({pool: st.lists(st.sampled_from(NAMES), min_size=1, unique=True)
                               for pool in POOLS}),
        st.sampled_from([1, 2]),  # the first backend's weight
        st.sampled_from(["true", "false"]),  # node.outer_df
        st.fixed_dictionaries({name: st.integers(0, 3) for name in NAMES}),  # what resolves, how
        st.sampled_from([{3: 0}, {3: 0, 4: 1}, {3: 1}]),
        st.dictionaries(
            st.tuples(st.sampled_from(POOLS), st.sampled_from(NAMES)),
            st.sampled_from([("up", 1, True), ("down", 0, False), ("drained", 0, True)]),
        ),
    ),
    min_size=2,
    max_size=6,
)  # fmt: skip


def config(backends: Mapping[str, list[str]], weight: int = 1, df: str = "true") -> Config:
    pools = "".join(
        f'[[pool]]\nname = "{pool}"\ntable_size = 251\nbackends = [\n'
        + "".join(
            f'{{ name = "{name}", address = "{address(name)}", weight = {w} }},\n'
            for name, w in zip(names, [weight, 1, 1], strict=False)
        )
        + "]\n"
        for pool, names in backends.items()
    )
    services = "".join(
        f'[[service]]\nvip = "192.0.2.{n}"\nprotocol = "tcp"\nport = 80\npool = "{pool}"\n'
        for n, pool in enumerate(backends)
    )
    head = 'hash_key = "000102030405060708090a0b0c0d0e0f"\n[node]\ninterfaces = ["eth0"]\n'
    return parse(f"{head}outer_df = {df}\n[workers]\ncpus = [0]\n{pools}{services}", "test.toml")


def address(name: str) -> IPAddress:
    return ip_address(f"10.0.0.{1 + NAMES.index(name)}")


def network(how: Mapping[str, int]) -> dict[IPAddress, Resolution]:
    """0: not looked up, 1 and 2: by one interface, 3: no route."""
    ways = {
        1: lambda name: resolved(hop(str(address(name)), ETH[0])),
        2: lambda name: resolved(hop(str(address(name)), ETH[1])),
        3: lambda _name: Resolution(hops=(), reason="no route"),
    }
    return {address(name): ways[n](name) for name, n in how.items() if n}


def standings(given: Mapping[BackendKey, tuple[str, int, bool]]) -> dict[BackendKey, Standing]:
    return {
        key: Standing(condition, weight, serves, "", 0.0)  # type: ignore[arg-type]
        for key, (condition, weight, serves) in given.items()
    }


def by_pool(given: Mapping[BackendKey, Standing]) -> Standings:
    return Standings({p: {k: s for k, s in given.items() if k[0] == p} for p in POOLS})


@pytest.mark.parametrize("form", [dict, by_pool])
@given(worlds=WORLDS)
@settings(max_examples=150, deadline=None)
def test_it_is_what_is_derived_from_nothing(
    form: Callable[[Mapping[BackendKey, Standing]], Mapping[BackendKey, Standing]],
    worlds: list[tuple],  # type: ignore[type-arg]
) -> None:
    before: State | None = None
    for backends, weight, df, how, tx, given_standings in worlds:
        facts = config(backends, weight, df), network(how), tx, form(standings(given_standings))
        again, fresh = derive(*facts, before), derive(*facts)
        assert again == fresh
        assert set(again.usable) == {
            (pool.name, m.name) for pool in fresh.forwarding.pools for m in pool.members if m.paths
        }
        before = again


ALL = {pool: list(NAMES) for pool in POOLS}
UP = {(pool, name): Standing("up", 1, True, "", 0.0) for pool in POOLS for name in NAMES}
WELL = {"a": 1, "b": 1, "c": 2}
TX = {3: 0, 4: 1}


def kept(before: State, after: State) -> list[bool]:
    pools = zip(before.forwarding.pools, after.forwarding.pools, strict=True)
    return [old is new for old, new in pools]


def test_another_standing_touches_its_pool_only() -> None:
    start = derive(config(ALL), network(WELL), TX, UP)
    down = UP | {("q", "a"): Standing("down", 0, False, "refused", 1.0)}
    after = derive(start.basis.config, start.basis.resolutions, TX, down, start)
    assert kept(start, after) == [True, False, True]
    assert after.forwarding.services is start.forwarding.services
    other_reason = down | {("r", "a"): Standing("up", 1, True, "slow", 2.0)}
    again = derive(start.basis.config, start.basis.resolutions, TX, other_reason, after)
    assert kept(after, again) == [True, True, True]


def test_another_standing_leaves_the_other_members_of_the_pool_alone() -> None:
    start = derive(config(ALL), network(WELL), TX, UP)
    down = UP | {("q", "a"): Standing("down", 0, False, "refused", 1.0)}
    after = derive(start.basis.config, start.basis.resolutions, TX, down, start)
    members = zip(start.forwarding.pools[1].members, after.forwarding.pools[1].members, strict=True)
    assert {old.name for old, new in members if old is not new} == {"a"}


def test_another_order_of_standings_says_nothing() -> None:
    start = derive(config(ALL), network(WELL), TX, UP)
    down = UP | {("q", "a"): Standing("down", 0, False, "refused", 1.0)}
    after = derive(config(ALL), network(WELL), TX, dict(reversed(down.items())), start)
    assert kept(start, after) == [True, False, True]


def test_a_lost_next_hop_touches_the_pools_that_use_it() -> None:
    some = ALL | {"p": ["a", "c"]}
    start = derive(config(some), network(WELL), TX, UP)
    after = derive(start.basis.config, network(WELL | {"b": 3}), TX, UP, start)
    assert kept(start, after) == [True, False, False]
    assert after.unusable == {("q", "b"): "no route", ("r", "b"): "no route"}


def test_the_same_file_and_network_again_change_nothing() -> None:
    start = derive(config(ALL), network(WELL), TX, UP)
    same = {key: replace(standing) for key, standing in UP.items()}
    after = derive(config(ALL), network(WELL), dict(TX), same, start)
    assert kept(start, after) == [True, True, True]
    assert after.forwarding.services is start.forwarding.services
    for pool in start.forwarding.pools:
        assert pool.members[0].paths is start.forwarding.pools[0].members[0].paths, "one address"


def test_another_ring_gives_other_paths() -> None:
    start = derive(config(ALL), network(WELL), TX, UP)
    after = derive(start.basis.config, start.basis.resolutions, {3: 5, 4: 1}, UP, start)
    assert kept(start, after) == [False, False, False]
    assert [member.paths[0].tx for member in after.forwarding.pools[0].members] == [5, 5, 1]
