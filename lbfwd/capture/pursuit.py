"""Keeps a capture right while the node changes, and tells what has changed."""

from collections.abc import Callable, Collection, Sequence

from lbfwd.capture.aim import Aim, Seen
from lbfwd.capture.follow import Follower
from lbfwd.capture.selection import CaptureError
from lbfwd.capture.tap import Tap

_NAMED = 8  # of what comes or goes at once


class Pursuit:
    """Follows one node.

    ``taken`` is called with what the node says whenever the capture was made right for it; ``say``
    tells the operator.
    """

    def __init__(
        self,
        aim: Aim,
        follower: Follower[Seen],
        taken: Callable[[Seen], None],
        say: Callable[[str], None],
    ) -> None:
        """Use an aim that is not taken yet."""
        self._aim = aim
        self._follower = follower
        self._taken = taken
        self._say = say
        self._first: tuple[Tap, ...] = ()
        self.changes = 0
        self.trouble = ""
        """Why less is captured than was asked for; empty: it is not."""

    def begin(self, seen: Seen) -> None:
        """Take aim for the first time. Raises CaptureError."""
        taken = self._aim.take(seen)
        if taken.failed:
            raise CaptureError("; ".join(taken.failed))
        if not taken.opened:
            raise CaptureError("no interface of the node is there")
        self._first = taken.opened
        self._taken(seen)

    def follow(self) -> Sequence[Tap]:
        """Return sockets that were opened since the last call."""
        first, self._first = self._first, ()
        if first:
            return first
        try:
            seen = self._follower.news()
        except CaptureError as error:
            self._note(f"{error}; the capture goes on with what it knows")
            return ()
        return self._take(seen) if seen else ()

    def _take(self, seen: Seen) -> Sequence[Tap]:
        before, generation = self._aim.contents, seen.status.generation
        try:
            taken = self._aim.take(seen)
        except CaptureError as error:
            knows = "the capture goes on with what it knows"
            rest = knows if self._aim.contents else "nothing is captured until there is"
            self._note(f"generation {generation}: {error}; {rest}")
            return ()
        self._note("; ".join(taken.failed))
        self._tell(generation, before)
        self._taken(seen)
        return taken.opened

    def _tell(self, generation: int, before: frozenset[str]) -> None:
        now = self._aim.contents
        if now == before:
            return
        self.changes += 1
        words = [
            f"{verb} {_listed(some)}"
            for verb, some in (("also captures", now - before), ("no more:", before - now))
            if some
        ]
        self._say(f"generation {generation}: {'; '.join(words)}")

    def _note(self, trouble: str) -> None:
        """Tell of a trouble once, and when it is over."""
        if trouble == self.trouble:
            return
        self.trouble = trouble
        self._say(trouble or "captures again what was asked for")


def _listed(things: Collection[str]) -> str:
    """Return their names, as many as one can read."""
    shown = ", ".join(sorted(things)[:_NAMED])
    return f"{shown} and {len(things) - _NAMED} more" if len(things) > _NAMED else shown
