"""What there is to go back to: the last configuration that was in force, and until when."""

import asyncio
import contextlib
from collections.abc import Callable

from lbfwd.config import Config
from lbfwd.supervisor.errors import Refused


class History:
    """One step back. Times are the event loop's, in seconds."""

    def __init__(self) -> None:
        """Begin without a past."""
        self._previous: Config | None = None
        self._deadline: float | None = None
        self._changed = asyncio.Event()

    def took_up(self, running: Config, deadline: float | None) -> None:
        """Note what was in force before; with a deadline, what is now must be confirmed."""
        self._previous = running
        self._set_deadline(deadline)

    def went_back(self) -> None:
        """Forget what we have gone back to: there is no step further back, and none forth."""
        self._previous = None
        self._set_deadline(None)

    def previous(self) -> Config:
        """Return what to go back to. Raises Refused: nothing is known."""
        if self._previous is None:
            raise Refused("nothing to undo: no reload has changed anything since the start or undo")
        return self._previous

    def confirm(self) -> None:
        """Keep what is in force. Raises Refused: nothing waits for that."""
        if self._deadline is None:
            raise Refused("no reload waits to be confirmed")
        self._set_deadline(None)

    def refuse_unconfirmed(self, now: float) -> None:
        """Raise Refused while a reload waits to be confirmed."""
        if self._deadline is not None:
            left_s = max(0.0, self._deadline - now)
            raise Refused(
                f"the last reload waits to be confirmed ({left_s:.0f} s left):"
                " lbfwd confirm or lbfwd undo first"
            )

    def postpone(self, deadline: float) -> None:
        """Try to go back later, for it did not work."""
        self._set_deadline(deadline)

    def is_overdue(self, now: float) -> bool:
        """Whether something was not confirmed in time."""
        return self._deadline is not None and now >= self._deadline

    async def overdue(self, now: Callable[[], float]) -> None:
        """Wait until something was not confirmed in time."""
        while not self.is_overdue(now()):
            self._changed.clear()
            left_s = None if self._deadline is None else self._deadline - now()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._changed.wait()

    def _set_deadline(self, deadline: float | None) -> None:
        self._deadline = deadline
        self._changed.set()
