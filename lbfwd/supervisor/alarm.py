"""Who asks the reconciler for a pass."""

import asyncio
import contextlib


class Alarm:
    """Asks the reconciler for a pass."""

    def __init__(self) -> None:
        """Begin suspicious: at first nothing is known to be as it should."""
        self._woken = asyncio.Event()
        self._suspicious = True

    def ring(self, suspicious: bool = False) -> None:
        """Ask for a pass; ``suspicious``: verify, too, what nobody but us should have changed."""
        self._suspicious |= suspicious
        self._woken.set()

    def suspect(self) -> None:
        """Have the next pass verify everything."""
        self._suspicious = True

    async def wait(self, longest_s: float) -> None:
        """Wait for a ring, but no longer than that."""
        # Not wait_for: before Python 3.12 it loses a cancellation that comes with the ring.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(longest_s):
                await self._woken.wait()
        self._woken.clear()

    def take_suspicion(self) -> bool:
        """Return whether to verify everything in this pass."""
        suspicious, self._suspicious = self._suspicious, False
        return suspicious
