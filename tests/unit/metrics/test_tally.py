import time

import pytest

from lbfwd.config import ConfigError, Problem
from lbfwd.health.outcome import Outcome
from lbfwd.metrics.tally import PROBE_BOUNDS_S, ProbeTally, ReloadTally
from lbfwd.supervisor.errors import Refused, SupervisorError


def test_a_probe_counts_in_each_of_its_pools() -> None:
    tally = ProbeTally()
    tally.keep(["a", "b", "c"])
    tally.count(["a", "b"], Outcome("refused", "no", 0.25))
    pools = tally.by_pool()
    for pool in ("a", "b"):
        assert pools[pool].outcomes == {"passed": 0, "refused": 1}
        assert pools[pool].total_s == 0.25
        assert pools[pool].durations[PROBE_BOUNDS_S.index(0.25)] == 1
    assert pools["c"].outcomes == {"passed": 0}


def test_what_takes_longer_than_every_bound_counts_above_it() -> None:
    tally = ProbeTally()
    tally.keep(["a"])
    tally.count(["a"], Outcome("timeout", "", PROBE_BOUNDS_S[-1] + 1))
    assert tally.by_pool()["a"].durations == [0] * len(PROBE_BOUNDS_S) + [1]


def test_pools_that_go_take_their_counts_along_and_others_keep_theirs() -> None:
    tally = ProbeTally()
    tally.keep(["a", "b"])
    tally.count(["a", "b"], Outcome("passed"))
    tally.keep(["b", "c"])
    tally.count(["a", "b"], Outcome("passed"))  # a probe that was under way
    assert {pool: p.outcomes["passed"] for pool, p in tally.by_pool().items()} == {"b": 2, "c": 0}


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ConfigError([Problem("f", "k", "v", "r")]), "refused"),
        (Refused("12 % of the buckets would move"), "refused"),
        (SupervisorError("no memory"), "failed"),
        (OSError(5, "an error"), "failed"),
    ],
)
def test_a_reload_counts_by_how_it_ends(error: Exception, outcome: str) -> None:
    tally = ReloadTally()
    started = tally.succeeded_at
    with pytest.raises(type(error)), tally.count():
        raise error
    wanted = dict.fromkeys(("succeeded", "refused", "failed"), 0) | {outcome: 1}
    assert tally.outcomes == wanted
    assert not tally.last_succeeded
    assert tally.succeeded_at == started


def test_a_reload_that_succeeds_mends_it() -> None:
    tally = ReloadTally()
    with pytest.raises(KeyError), tally.count():
        raise KeyError
    before = time.time()
    with tally.count():
        pass
    assert tally.outcomes == {"succeeded": 1, "refused": 0, "failed": 1}
    assert tally.last_succeeded
    assert before <= tally.succeeded_at <= time.time()
    assert 0 <= tally.last_duration_s < 60
