"""The demo's verdicts: each check fails on what it is there to notice."""

from lbfwd.demo import checks
from lbfwd.demo.client import Answer, Transfer
from lbfwd.demo.tally import Phase, Tally

NAMES = ("a", "b", "c")


def phase(title: str = "quiet", **counts: int) -> Phase:
    found = Phase(title, 0.0)
    for backend, count in counts.items():
        found.counts[backend, 4] += count // 2
        found.counts[backend, 6] += count - count // 2
    return found


def test_equal_shares_pass_within_the_tolerance() -> None:
    assert checks.even(phase(a=130, b=140, c=130), NAMES).good
    assert not checks.even(phase(a=200, b=100, c=100), NAMES).good
    assert not checks.even(phase(), NAMES).good


def test_an_absent_backend_must_have_nothing() -> None:
    assert checks.even(phase(a=200, c=200), ("a", "c"), ("b",)).good
    assert not checks.even(phase(a=200, b=1, c=200), ("a", "c"), ("b",)).good


def test_one_failure_is_a_failure_and_is_told() -> None:
    totals = phase(a=10)
    assert checks.no_failures(totals).good
    totals.failures.append(Answer(0.0, 1.0, 4, 2, error="refused"))
    verdict = checks.no_failures(totals)
    assert not verdict.good
    assert "1 failed: refused" in verdict.detail
    assert not checks.no_failures(phase()).good


def test_broken_connections_are_forgiven_only_while_the_pool_changes() -> None:
    quiet, change = phase(a=10), phase("", a=10)
    change.resets = 1
    assert checks.no_resets([quiet, change]).good
    quiet.resets = 1
    assert not checks.no_resets([quiet, change]).good


def test_every_backend_must_answer_in_both_families() -> None:
    totals = phase(a=10, b=10, c=10)
    assert checks.both_families(totals, NAMES).good
    del totals.counts["b", 6]
    assert not checks.both_families(totals, NAMES).good


def test_a_transfer_must_arrive_unchanged() -> None:
    assert checks.transferred(Transfer("upload", 4, 10, 1.0, "a", good=True)).good
    changed = checks.transferred(Transfer("upload", 4, 10, 1.0, "a", good=False))
    assert not changed.good
    assert "DIFFERS" in changed.detail
    failed = checks.transferred(Transfer("upload", 4, 10, 1.0, error="reset"))
    assert not failed.good
    assert "reset" in failed.detail


def test_stopping_must_leave_neither_errors_nor_rules() -> None:
    assert checks.stopped([0, 0], "").good
    assert not checks.stopped([0, 1], "").good
    assert not checks.stopped([0, 0], "table netdev lbfwd").good


def answer(started: float, ended: float, backend: str = "a", tries: int = 1) -> Answer:
    return Answer(started, ended, 4, tries, backend)


def test_what_touches_a_change_belongs_to_it() -> None:
    tally = Tally()
    before, change, after = (tally.begin(title) for title in ("before", "", "after"))
    before.started, change.started, after.started = 0.0, 10.0, 20.0
    tally.add(answer(1, 2, "a"))
    tally.add(answer(9, 11, "b"))
    tally.add(answer(9, 21, "b"))
    tally.add(answer(12, 13, "b", tries=2))
    tally.add(answer(19, 21, "b"))
    tally.add(answer(20, 22, "c"))
    assert before.counts == {("a", 4): 1}
    assert change.counts == {("b", 4): 4}
    assert after.counts == {("c", 4): 1}
    assert [p.resets for p in (before, change, after)] == [0, 1, 0]
    assert tally.totals().answered == 6
