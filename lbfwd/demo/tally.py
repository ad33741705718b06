"""Who answered how often, by phase of the demo. Filled by one thread, read by others."""

import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field

from lbfwd.demo.client import Answer
from lbfwd.demo.lab import LabError

RECENT_S = 1.0


@dataclass
class Phase:
    """Answers to the requests of one phase of the demo.

    A phase without a title is a change: what was asked before it and answered later, or asked
    meanwhile, belongs to it.
    """

    title: str
    started: float
    resets: int = 0
    """How often a connection failed and was tried again."""
    counts: Counter[tuple[str, int]] = field(default_factory=Counter)
    """By backend and family (4 or 6)."""
    failures: list[Answer] = field(default_factory=list)

    @property
    def answered(self) -> int:
        """How many requests were answered."""
        return self.counts.total()

    def by_backend(self, name: str) -> int:
        """How many requests a backend answered."""
        return sum(count for (backend, _family), count in self.counts.items() if backend == name)

    def share(self, name: str) -> float:
        """Return a backend's part of the answers, 0 to 1."""
        return self.by_backend(name) / self.answered if self.answered else 0.0


class Tally:
    """Counts answers by phase."""

    def __init__(self) -> None:
        """Start without a phase."""
        self.phases: list[Phase] = []
        self._recent: deque[tuple[float, str]] = deque()
        self._changed = threading.Condition()
        self._ended = False

    def begin(self, title: str) -> Phase:
        """Begin a phase: requests that start from now on belong to it."""
        with self._changed:
            phase = Phase(title, time.monotonic())
            self.phases.append(phase)
            return phase

    def add(self, answer: Answer) -> None:
        """Count an answer or a failure."""
        with self._changed:
            phase = self._phase(answer)
            phase.resets += answer.tries - 1
            if answer.error:
                phase.failures.append(answer)
            else:
                phase.counts[answer.backend, answer.family] += 1
                self._recent.append((time.monotonic(), answer.backend))
            self._changed.notify_all()

    def _phase(self, answer: Answer) -> Phase:
        first, last = (
            max(index for index, phase in enumerate(self.phases) if phase.started <= moment)
            for moment in (answer.started, answer.ended)
        )
        lived_in = self.phases[first : last + 1]
        return next((phase for phase in lived_in if not phase.title), lived_in[0])

    def end(self) -> None:
        """Say that no answer will come any more."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def wait(self, phase: Phase, answers: int, timeout_s: float) -> None:
        """Wait until a phase has so many answers or failures. Raises LabError."""

        def done() -> bool:
            return phase.answered + len(phase.failures) >= answers

        with self._changed:
            self._changed.wait_for(lambda: done() or self._ended, timeout_s)
            if not done():
                why = "the client has ended" if self._ended else f"not within {timeout_s:g} s"
                raise LabError(f"{phase.answered} of {answers} answers ({phase.title}): {why}")

    def per_second(self) -> Counter[str]:
        """Return how many requests each backend answered in the last second."""
        with self._changed:
            since = time.monotonic() - RECENT_S
            while self._recent and self._recent[0][0] < since:
                self._recent.popleft()
            return Counter(backend for _when, backend in self._recent)

    def totals(self) -> Phase:
        """Return all phases as one."""
        with self._changed:
            whole = Phase("all", 0.0)
            for phase in self.phases:
                whole.counts.update(phase.counts)
                whole.failures.extend(phase.failures)
                whole.resets += phase.resets
            return whole
