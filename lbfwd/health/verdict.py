"""From outcomes to verdicts: rise and fall. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from lbfwd.health.outcome import Outcome


@dataclass(frozen=True)
class Verdict:
    """What its probes say of a backend.

    ``since``: when it became so. ``failed``: when it last began to fail, 0: never. Both are seconds
    since the epoch. ``last``: the outcome of the last probe; where it failed, ``reason`` says what
    was asked and what went wrong. ``reason`` is empty for one that passes without exception.
    """

    passing: bool
    since: float
    failed: float
    last: Outcome
    reason: str


class Track:
    """Counts the outcomes of one question; the first decides, then ``rise`` and ``fall`` do.

    What is this node's own fault changes nothing but the reason.
    """

    def __init__(self, rise: int, fall: int, question: str) -> None:
        """Know nothing yet; ``question`` names it in reasons."""
        self._rise = rise
        self._fall = fall
        self._question = question
        self._streak = 0  # outcomes in a row that contradict the verdict
        self.verdict: Verdict | None = None

    def count(self, outcome: Outcome, now: float) -> bool:
        """Take an outcome; returns whether the verdict has turned, or fails for another reason."""
        before = self.verdict
        if before is None:
            self._turn(outcome, now, 0.0 if outcome.passed else now)
            return True
        if not outcome.ours:
            self._streak = 0 if outcome.passed == before.passing else self._streak + 1
        if self._streak >= (self._fall if before.passing else self._rise):
            self._turn(outcome, now, before.failed if outcome.passed else now)
            return True
        reason = self._reason(outcome) or ("" if before.passing else before.reason)
        self.verdict = Verdict(before.passing, before.since, before.failed, outcome, reason)
        return not (before.passing or outcome.ours) and reason != before.reason

    def _turn(self, outcome: Outcome, now: float, failed: float) -> None:
        self._streak = 0
        self.verdict = Verdict(outcome.passed, now, failed, outcome, self._reason(outcome))

    def _reason(self, outcome: Outcome) -> str:
        return "" if outcome.passed else f"{self._question}: {outcome.detail or outcome.name}"


def combined(tracks: Sequence[Track]) -> Verdict | None:
    """Return the verdict on a backend that has to answer several questions; None: not yet."""
    verdicts = [track.verdict for track in tracks if track.verdict]
    failing = [verdict for verdict in verdicts if not verdict.passing]
    if failing:
        return min(failing, key=lambda verdict: verdict.since)
    if not verdicts or len(verdicts) < len(tracks):
        return None
    latest = max(verdicts, key=lambda verdict: verdict.since)
    troubled = next((verdict for verdict in verdicts if verdict.reason), latest)
    return Verdict(
        passing=True,
        since=latest.since,
        failed=max(verdict.failed for verdict in verdicts),
        last=troubled.last,
        reason=troubled.reason,
    )
