"""Pool safety, hold-down, slow start: what becomes of verdicts."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import pytest

from lbfwd.config import Config, parse
from lbfwd.health.judge import STEPS, Known, judge, restless, scale, standings
from lbfwd.health.outcome import PASSED, Outcome
from lbfwd.health.standing import BackendKey, Standing, Standings
from lbfwd.health.verdict import Verdict

NOW = 1000.0
BAD = Outcome("timeout", "no answer")


@dataclass(frozen=True)
class Operation:
    mode: Literal["drained", "disabled"]
    who: str = "ann"
    when: float = 7.0


def config(count: int = 4, pool: str = "", health: str = 'type = "tcp"') -> Config:
    backends = "".join(
        f'{{ name = "b{i}", address = "10.0.0.{i + 1}", weight = {i + 1} }},' for i in range(count)
    )
    return parse(
        f"""
        hash_key = "{"ab" * 16}"
        [node]
        interfaces = ["eth0"]
        [workers]
        cpus = [0]
        [[pool]]
        name = "p"
        backends = [{backends}]
        {pool}
        [pool.health]
        {health}
        [[service]]
        vip = "192.0.2.1"
        protocol = "tcp"
        port = 80
        pool = "p"
        """,
        "f",
    )


def passing(since: float = 0, failed: float = 0) -> Verdict:
    return Verdict(True, since, failed, PASSED, "")


def failing(since: float) -> Verdict:
    return Verdict(False, since, since, BAD, "tcp: no answer")


def key(number: int) -> BackendKey:
    return "p", f"b{number}"


def judged(  # noqa: PLR0917
    of: Config,
    verdicts: Mapping[int, Verdict],
    before: Mapping[BackendKey, Standing] | None = None,
    now: float = NOW,
    unreachable: Mapping[int, str] | None = None,
    operations: Mapping[int, Operation] | None = None,
) -> dict[BackendKey, Standing]:
    return standings(
        of,
        {key(n): verdict for n, verdict in verdicts.items()},
        {key(n): reason for n, reason in (unreachable or {}).items()},
        {key(n): operation for n, operation in (operations or {}).items()},
        before or {},
        now,
    )


def conditions(found: Mapping[BackendKey, Standing]) -> list[str]:
    return [standing.condition for standing in found.values()]


def test_a_pool_without_checks_is_up_with_its_weights() -> None:
    found = judged(config(2, health='type = "none"'), {})
    assert found == {key(0): Standing("up", 1, True, "", NOW),
                     key(1): Standing("up", 2, True, "", NOW)}  # fmt: skip


def test_what_fails_is_out_with_its_reason() -> None:
    found = judged(config(2), {0: passing(), 1: failing(900)})
    assert found[key(0)] == Standing("up", 1, True, "", NOW)
    assert found[key(1)] == Standing("down", 0, False, "tcp: no answer", NOW)


def test_before_the_first_verdict_there_are_no_flows() -> None:
    found = judged(config(2), {0: passing()})
    assert found[key(1)] == Standing("checking", 0, False, "", NOW)


def test_new_checks_take_nothing_away_before_they_have_spoken() -> None:
    before = judged(config(2, health='type = "none"'), {})
    assert judged(config(2), {}, before, NOW + 5) == before


def test_since_stays_while_the_condition_does() -> None:
    before = judged(config(2), {0: passing(), 1: failing(900)})
    later = judged(config(2), {0: failing(1005), 1: failing(900)}, before, NOW + 10)
    assert [s.since for s in later.values()] == [NOW + 10] * 2, "both have failed open"
    again = judged(config(2), {0: failing(1005), 1: failing(900)}, later, NOW + 20)
    assert again == later


@pytest.mark.parametrize("health", ['type = "none"', 'type = "tcp"'])
def test_a_backend_without_next_hop_is_down_with_that_reason(health: str) -> None:
    found = judged(config(2, health=health), {0: passing(), 1: passing()},
                   unreachable={1: "no route"})  # fmt: skip
    assert found[key(1)] == Standing("down", 0, False, "no route", NOW)
    assert found[key(0)].condition == "up"


def test_all_down_fails_open_unless_there_is_no_way() -> None:
    verdicts = {0: failing(1), 1: failing(2), 2: failing(3), 3: failing(4)}
    found = judged(config(), verdicts, unreachable={3: "no route"})
    assert conditions(found) == ["failed_open"] * 3 + ["down"]
    assert [s.weight for s in found.values()] == [1, 2, 3, 0]
    assert found[key(0)].serves
    assert found[key(0)].reason == "tcp: no answer"


def test_all_down_withdraws_where_that_is_wanted() -> None:
    verdicts = {n: failing(n) for n in range(4)}
    found = judged(config(pool='all_down = "withdraw"\nmin_healthy = 2'), verdicts)
    assert conditions(found) == ["down"] * 4


@pytest.mark.parametrize("least", ["2", '"50%"', '"26%"'])
def test_below_min_healthy_further_failures_are_not_acted_on(least: str) -> None:
    of = config(pool=f"min_healthy = {least}")
    verdicts = {0: passing(), 1: failing(30), 2: failing(10), 3: failing(20)}
    found = judged(of, verdicts)
    assert conditions(found) == ["up", "failed_open", "down", "down"], "the last to fail is kept"
    assert judged(of, verdicts | {0: failing(40)})[key(2)].condition == "failed_open"


def test_min_healthy_is_about_those_that_operators_leave_to_it() -> None:
    of = config(pool='min_healthy = "50%"')
    operations = {2: Operation("drained"), 3: Operation("disabled")}
    found = judged(of, {0: passing(), 1: failing(1), 2: passing(), 3: passing()}, {},
                   NOW, {}, operations)  # fmt: skip
    assert conditions(found) == ["up", "down", "drained", "disabled"]


def test_operators_have_the_last_word() -> None:
    operations = {0: Operation("drained"), 1: Operation("disabled"), 2: Operation("drained")}
    found = judged(config(), {0: passing(), 1: passing(), 2: failing(5), 3: passing()}, {}, NOW,
                   {}, operations)  # fmt: skip
    assert found[key(0)] == Standing("drained", 0, True, "by ann", 7)
    assert found[key(1)] == Standing("disabled", 0, False, "by ann", 7)
    assert found[key(2)] == Standing("drained", 0, False, "by ann; tcp: no answer", 7)


def test_hold_down_ends_so_long_after_the_last_failure() -> None:
    of = config(2, health='type = "tcp"\nhold_down_s = 30')
    down = judged(of, {0: passing(), 1: failing(990)})
    back = {0: passing(), 1: passing(995, failed=990)}
    held = judged(of, back, down, 1019.9)
    assert held[key(1)].condition == "down"
    assert "held down for 30 s" in held[key(1)].reason
    assert restless(held, {key(1): back[1]})
    assert judged(of, back, held, 1020)[key(1)] == Standing("up", 2, True, "", 1020)
    flapped = {0: passing(), 1: passing(1015, failed=1010)}
    assert judged(of, flapped, held, 1030)[key(1)].condition == "down", "it failed again meanwhile"


def test_a_held_backend_is_better_than_one_that_fails() -> None:
    of = config(2, health='type = "tcp"\nhold_down_s = 30')
    down = judged(of, {0: passing(), 1: failing(990)})
    found = judged(of, {0: failing(1001), 1: passing(1001, failed=990)}, down, 1002)
    assert conditions(found) == ["down", "up"]
    assert not found[key(1)].reason, "it is in service, so it is not held"


def test_what_was_in_service_is_not_held() -> None:
    of = config(2, health='type = "tcp"\nhold_down_s = 30')
    opened = judged(of, {0: failing(990), 1: failing(990)})
    found = judged(of, {0: passing(999, failed=990), 1: failing(990)}, opened)
    assert conditions(found) == ["up", "down"]


def steps(of: Config, number: int, before: dict[BackendKey, Standing], at: list[float]) -> Any:
    verdicts = {n: passing() for n in range(4)}
    found = []
    for now in at:
        before = judged(of, verdicts, before, now)
        found.append(before[key(number)].weight)
    return found, before


def test_a_slow_start_goes_by_fifths_of_the_weight() -> None:
    of = config(pool="slow_start_s = 40", health='type = "tcp"\nhold_down_s = 0')
    down = judged(of, {0: passing(), 1: passing(), 2: passing(), 3: failing(1)})
    assert [s.weight for s in down.values()] == [5, 10, 15, 0], "five times the weights, all over"
    assert scale(of.pools[0]) == STEPS == 5
    found, last = steps(of, 3, down, [2000, 2009.9, 2010, 2020, 2030, 2039.9, 2040, 2041])
    assert found == [4, 4, 8, 12, 16, 16, 20, 20]
    assert last[key(3)] == Standing("up", 20, True, "", 2040)
    assert last[key(0)].since == NOW


def test_a_backend_that_a_reload_adds_starts_slowly_but_not_at_the_start_of_lbfwd() -> None:
    of = config(pool="slow_start_s = 40")
    assert [s.condition for s in judged(of, {n: passing() for n in range(4)}).values()] == [
        "up"
    ] * 4
    before = judged(config(3, pool="slow_start_s = 40"), {n: passing() for n in range(3)})
    found = judged(of, {n: passing() for n in range(4)}, before, NOW + 1)
    assert found[key(3)] == Standing("starting", 4, True, "slow start of 40 s", NOW + 1)
    assert restless(found, {})
    assert not restless(before, {})


def test_a_backend_of_weight_0_starts_when_it_is_given_a_weight() -> None:
    of = config(2, pool="slow_start_s = 40")
    verdicts = {0: passing(), 1: passing()}
    (pool,) = of.pools
    off = pool.backends[1].model_copy(update={"weight": 0})
    idle_pool = pool.model_copy(update={"backends": (pool.backends[0], off)})
    idle = of.model_copy(update={"pools": (idle_pool,)})
    before = judged(idle, verdicts)
    for now in (NOW + 1, NOW + 50, NOW + 100):
        before = judged(idle, verdicts, before, now)
        assert before[key(1)] == Standing("up", 0, True, "", NOW)
        assert not restless(before, {}), "it would be judged twice a second for ever"
    found = judged(of, verdicts, before, NOW + 101)
    assert found[key(1)] == Standing("starting", 2, True, "slow start of 40 s", NOW + 101)


def test_a_backend_that_failed_open_has_not_been_away() -> None:
    of = config(2, pool="slow_start_s = 40")
    opened = judged(of, {0: failing(1), 1: failing(1)})
    assert conditions(judged(of, {0: passing(), 1: passing()}, opened)) == ["up", "up"]


def test_a_pool_that_nobody_speaks_of_is_judged_like_any_other() -> None:
    made = config(health='type = "none"')
    known = {("p", f"b{n}"): Standing("up", n + 1, True, "", 5.0) for n in range(4)}
    known["p", "b1"] = Standing("down", 0, False, "timeout", 6.0)
    known["p", "b2"] = Standing("up", 7, True, "", 8.0)
    del known["p", "b3"]
    found = standings(made, {}, {}, {}, known, NOW)
    # What is said of a backend that is not there has the pool judged step by step.
    assert found == standings(made, {}, {}, {("p", "gone"): Operation("drained")}, known, NOW)
    assert found["p", "b0"] is known["p", "b0"]
    assert [found["p", f"b{n}"].since for n in range(4)] == [5.0, NOW, 8.0, NOW]


def test_a_pool_in_which_one_backend_has_changed_is_judged_like_any_other() -> None:
    made = config(health='type = "none"')
    (pool,) = made.pools
    known = {("p", b.name): Standing("up", b.weight, True, "", 5.0) for b in pool.backends}
    same = Known({}, {}, {}, Standings({"p": known}))
    assert judge(pool, same, NOW) is known
    known = {**known, ("p", "b1"): replace(known["p", "b1"], weight=99)}
    for before in (known, dict(reversed(known.items()))):
        found = judge(pool, Known({}, {}, {}, Standings({"p": before})), NOW)
        assert found == standings(made, {}, {}, {("p", "gone"): Operation("drained")}, before, NOW)
        assert {key for key in found if found[key] is not before[key]} == {("p", "b1")}
        assert list(found) == [("p", backend.name) for backend in pool.backends]
