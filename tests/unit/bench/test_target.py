"""Reached, not reached, missed; and the way through JSON."""

import json

import pytest

from bench.target import at_least, at_most, from_plain


def test_the_median_decides_what_is_reached() -> None:
    assert at_least("rate", 0.95, [0.90, 0.96, 0.99]).reached
    assert not at_least("rate", 0.95, [0.90, 0.94, 0.99]).reached
    assert at_most("cost", 2, [1.9, 1.8, 2.5]).reached


def test_only_a_whole_interval_misses() -> None:
    assert at_least("rate", 0.95, [0.90, 0.94, 0.949]).missed
    assert not at_least("rate", 0.95, [0.90, 0.94, 0.951]).missed
    assert at_most("cost", 2, [2.1, 2.2, 3.0]).missed
    assert not at_most("cost", 2, [2.0, 2.2, 3.0]).missed


def test_a_target_survives_json() -> None:
    target = at_most("cost", 2, [1.0, 2.5])
    assert from_plain(json.loads(json.dumps(target.plain()))) == target


@pytest.mark.parametrize("change", [{"values": 3}, {"bound": "two"}])
def test_what_is_no_target_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(TypeError, match="no target"):
        from_plain(at_least("rate", 1, [1.0]).plain() | change)
