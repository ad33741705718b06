"""What the log says of changed standings."""

from dataclasses import replace

from lbfwd.health.news import Event, news
from lbfwd.health.standing import Condition, Standing, Standings
from tests.unit.health.test_judge import config

POOLS = config(2).pools
UP = Standing("up", 1, True, "", 1.0)
DOWN = Standing("down", 0, False, "tcp: no answer", 2.0)


def said(before: list[Standing], after: list[Standing]) -> list[Event]:
    def named(standings: list[Standing]) -> Standings:
        return Standings({"p": {("p", f"b{n}"): s for n, s in enumerate(standings)}})

    return list(news(POOLS, named(before), named(after)))


def names(before: list[Standing], after: list[Standing]) -> list[str]:
    return [event.name for event in said(before, after)]


def condition(name: Condition) -> Standing:
    return replace(UP, condition=name)


def test_a_failure_names_the_backend_and_the_reason() -> None:
    fields = {"pool": "p", "backend": "b1", "reason": "tcp: no answer"}
    assert said([UP, UP], [UP, DOWN]) == [Event("warning", "backend_down", fields)]


def test_a_recovery_is_said_once() -> None:
    starting = replace(UP, condition="starting", reason="slow start of 9 s")
    assert names([UP, DOWN], [UP, starting]) == ["backend_up"]
    assert names([UP, starting], [UP, replace(starting, weight=3)]) == []
    assert names([UP, starting], [UP, UP]) == []


def test_another_reason_is_no_news() -> None:
    assert names([UP, DOWN], [UP, replace(DOWN, reason="tcp: connection refused")]) == []


def test_at_the_start_only_what_is_wrong_is_said() -> None:
    assert names([], [UP, DOWN]) == ["backend_down"]
    assert names([], [UP, UP]) == []


def test_pools() -> None:
    opened = condition("failed_open")
    assert names([UP, UP], [opened, opened]) == ["backend_failed_open"] * 2 + ["pool_failed_open"]
    assert names([opened, opened], [UP, DOWN]) == ["backend_up", "backend_down", "pool_recovered"]
    assert names([UP, DOWN], [DOWN, DOWN]) == ["backend_down", "pool_down"]
    assert names([DOWN, DOWN], [UP, DOWN]) == ["backend_up", "pool_recovered"]
    (event,) = [e for e in said([UP, UP], [opened, UP]) if e.name == "pool_failed_open"]
    assert (event.level, event.fields["pool"]) == ("error", "p")


def test_operators() -> None:
    assert names([UP, UP], [condition("drained"), UP]) == ["backend_drained"]
    assert (
        names([UP, UP], [condition("disabled"), condition("disabled")]) == ["backend_disabled"] * 2
    ), "a pool that was emptied on purpose has not failed"
