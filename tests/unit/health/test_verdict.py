"""Rise and fall, against the rule in words: so many in a row that contradict, and it turns."""

import itertools
from typing import Literal

import pytest

from lbfwd.health.outcome import PASSED, Outcome
from lbfwd.health.verdict import Track, Verdict, combined

REFUSED = Outcome("refused", "connection refused")


def run(track: Track, outcomes: str) -> list[bool]:
    """Feed ``+`` and ``-`` at the seconds 1, 2, 3 …; returns whether it passes, after each."""
    found = []
    for second, sign in enumerate(outcomes, 1):
        track.count(PASSED if sign == "+" else REFUSED, second)
        assert track.verdict is not None
        found.append(track.verdict.passing)
    return found


@pytest.mark.parametrize(("rise", "fall"), [(1, 1), (2, 3), (3, 2)])
def test_it_turns_after_so_many_in_a_row(rise: int, fall: int) -> None:
    for outcomes in map("".join, itertools.product("+-", repeat=9)):
        assert run(Track(rise, fall, "q"), outcomes) == in_words(outcomes, rise, fall), outcomes


def in_words(outcomes: str, rise: int, fall: int) -> list[bool]:
    """The first decides; then it turns when all that came last, since it turned, contradict it."""
    passing, since = outcomes[0] == "+", 1
    want = [passing]
    for end in range(2, len(outcomes) + 1):
        if outcomes[since:end].endswith("-" * fall if passing else "+" * rise):
            passing, since = not passing, end
        want.append(passing)
    return want


def test_it_is_told_when_and_why_it_fails() -> None:
    track = Track(2, 2, "tcp 10.0.0.1:80")
    run(track, "+--")
    assert track.verdict == Verdict(False, 3, 3, REFUSED, "tcp 10.0.0.1:80: connection refused")
    run(track, "+")
    assert track.verdict == Verdict(False, 3, 3, PASSED, "tcp 10.0.0.1:80: connection refused")
    track.count(PASSED, 9)
    assert track.verdict == Verdict(True, 9, 3, PASSED, "")
    track.count(REFUSED, 10)
    assert track.verdict == Verdict(True, 9, 3, REFUSED, "tcp 10.0.0.1:80: connection refused")


@pytest.mark.parametrize("name", ["late", "not_sent"])
def test_faults_of_this_node_are_not_the_backends(name: Literal["late", "not_sent"]) -> None:
    track = Track(2, 2, "q")
    run(track, "+-")
    for second in range(5):
        assert not track.count(Outcome(name, "busy"), second)
    assert track.verdict is not None
    assert (track.verdict.passing, track.verdict.reason) == (True, "q: busy")
    assert track.count(REFUSED, 9), "what was counted before still counts"
    first = Track(2, 2, "q")
    assert first.count(Outcome(name, "busy"), 1)
    assert first.verdict is not None
    assert not first.verdict.passing, "at first it is not known to be well"


def test_only_turns_are_reported() -> None:
    track = Track(2, 2, "q")
    assert [track.count(o, 1) for o in (PASSED, PASSED, REFUSED, REFUSED, REFUSED)] == [
        True, False, False, True, False,
    ]  # fmt: skip


def test_another_failure_is_reported_once() -> None:
    """What is said of a backend that is down is why it fails now, not why it failed at first."""
    track, timeout = Track(2, 2, "q"), Outcome("timeout", "no answer")
    told = [track.count(o, 1) for o in (REFUSED, timeout, timeout, PASSED, timeout, REFUSED)]
    assert told == [True, True, False, False, False, True]
    assert not track.count(Outcome("late", "by 120 ms"), 2), "no fault of the backend"
    passing = Track(2, 3, "q")
    assert [passing.count(o, 1) for o in (PASSED, timeout, REFUSED)] == [True, False, False]


def test_a_backend_with_several_questions_has_to_answer_all() -> None:
    one, two = Track(1, 1, "one"), Track(1, 1, "two")
    assert combined([one, two]) is None
    one.count(PASSED, 1)
    assert combined([one, two]) is None
    two.count(PASSED, 2)
    both = combined([one, two])
    assert both is not None
    assert (both.passing, both.since, both.reason) == (True, 2, "")
    two.count(REFUSED, 5)
    failing = combined([one, two])
    assert failing is not None
    assert (failing.passing, failing.since, failing.reason) == (False, 5, "two: connection refused")


def test_a_failure_needs_no_answer_from_the_others() -> None:
    one, two = Track(1, 1, "one"), Track(1, 1, "two")
    two.count(REFUSED, 4)
    failing = combined([one, two])
    assert failing is not None
    assert not failing.passing
