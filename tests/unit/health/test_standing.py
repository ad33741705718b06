"""Standings by pool: a mapping like any other, that tells what was judged anew."""

from hypothesis import given
from hypothesis import strategies as st

from lbfwd.health.standing import BackendKey, Standing, Standings

POOLS = st.dictionaries(
    st.sampled_from("abc"), st.dictionaries(st.sampled_from("xyz"), st.integers(0, 3)), max_size=3
)


def standings(weights: dict[str, dict[str, int]]) -> Standings:
    return Standings(
        {
            pool: {(pool, name): Standing("up", w, True, "", 0.0) for name, w in members.items()}
            for pool, members in weights.items()
        }
    )


def plain(weights: dict[str, dict[str, int]]) -> dict[BackendKey, int]:
    return {(pool, name): w for pool, members in weights.items() for name, w in members.items()}


@given(POOLS)
def test_it_is_the_mapping_of_all_backends(weights: dict[str, dict[str, int]]) -> None:
    made = standings(weights)
    assert {key: standing.weight for key, standing in made.items()} == plain(weights)
    assert len(made) == len(plain(weights))
    assert ("a", "nobody") not in made
    assert ("nowhere", "x") not in made


@given(POOLS, POOLS)
def test_other_pools_replace_whole_pools(
    weights: dict[str, dict[str, int]], others: dict[str, dict[str, int]]
) -> None:
    old = standings(weights)
    new = old.with_pools(
        {p: {k: s for k, s in standings(others).items() if k[0] == p} for p in others}
    )
    assert {key: standing.weight for key, standing in new.items()} == plain({**weights, **others})
    assert {key: standing.weight for key, standing in old.items()} == plain(weights)
    changed = {key for key in plain(weights) | plain(others) if key[0] in others}
    assert set(new.unlike(old)) == set(old.unlike(new)) == changed
    assert new.unlike(new) == []
