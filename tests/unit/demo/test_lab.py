"""The lab's waiting."""

import pytest

from lbfwd.demo.lab import LabError, eventually


def test_a_fact_that_comes_true_ends_the_wait() -> None:
    answers = iter(["", "", "green"])
    assert eventually(lambda: next(answers), 5.0, "three looks") == "green"
    assert list(answers) == []


def test_a_fact_that_stays_false_is_named() -> None:
    with pytest.raises(LabError, match=r"the moon is green: not so within 0\.05 s"):
        eventually(lambda: False, 0.05, "the moon is green")
