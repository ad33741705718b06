"""[announce], and what a service says of it."""

import pytest

from tests.unit.config.samples import GOOD, accepted, change, refused

PLACE = "[[pool]]"


def announcing(keys: str) -> str:
    return change(PLACE, f"[announce]\n{keys}\n{PLACE}")


def test_nothing_is_announced_by_default() -> None:
    config = accepted(GOOD)
    assert (config.announce.table, config.announce.drain_s) == (0, 30)
    assert config.services[0].announce == "when_healthy"


@pytest.mark.parametrize("table", [0, 1, 252, 256, 7699, 2**31 - 1])
def test_tables_that_can_be_used(table: int) -> None:
    assert accepted(announcing(f"table = {table}")).announce.table == table


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        ("253", 'the kernel\'s "default"'),
        ("254", 'the kernel\'s "main"'),
        ("255", 'the kernel\'s "local"'),
        ("7700", "lbfwd's own for probes"),
        ("-1", "1 to 2147483647"),
        (str(2**31), "1 to 2147483647"),
        ("true", "1 to 2147483647"),
        ('"100"', "1 to 2147483647"),
    ],
)
def test_tables_that_cannot_be_used(value: str, rule: str) -> None:
    (problem,) = refused(announcing(f"table = {value}"))
    assert (problem.key, problem.value) == ("announce.table", value)
    assert rule in problem.rule


def test_drain_s_is_ten_minutes_at_most() -> None:
    assert accepted(announcing("drain_s = 600")).announce.drain_s == 600
    (problem,) = refused(announcing("drain_s = 601"))
    assert problem.rule == "a whole number from 0 to 600"


def test_a_service_says_when() -> None:
    text = change('protocol = "tcp"', 'protocol = "tcp"\nannounce = "sometimes"')
    (problem,) = refused(text)
    assert problem.rule == '"when_healthy", "always" or "never"'
