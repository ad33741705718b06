"""Notices that the node has changed, without asking it all the time.

What a capture is made for (services, backends, interfaces) changes seldom, and telling it costs a
large node something. So the number of the published generation is looked at, which costs nothing
but a read of a file, and the node is asked when it has moved.
"""

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Generic, TypeVar

from lbfwd.capture.selection import CaptureError
from lbfwd.shared import CONTROL_BYTES, published_generation

T = TypeVar("T")

LOOK_S = 1.0
IDLE_S = 5.0  # what publishes no generation (an interface made again) is seen after so long
SHARE = 10  # of the time, the part that the node may be kept busy with answers


class Follower(Generic[T]):
    """Calls ``look`` in a thread when the node that ``control`` belongs to has changed.

    ``look`` may block, and raises CaptureError when the node does not answer.
    """

    def __init__(self, control: Path, look: Callable[[], T]) -> None:
        """Take note of the generation: what is looked at from now on is not older."""
        self._control = control
        self._look = look
        self._known = published(control)
        self._pending: Future[T] | None = None
        self._asked = time.monotonic()
        self._due, self._idle_until = self._asked + LOOK_S, self._asked + IDLE_S

    def news(self) -> T | None:
        """Return what was found since the last call; None: nothing. Does not block.

        Raises CaptureError: the node did not answer. It is asked again.
        """
        now = time.monotonic()
        if self._pending is None:
            if now >= self._due:
                self._ask_if_changed(now)
            return None
        if not self._pending.done():
            return None
        done, self._pending = self._pending, None
        self._due = now + max(LOOK_S, SHARE * (now - self._asked))
        self._idle_until = now + IDLE_S
        try:
            return done.result()
        except CaptureError:
            self._known = None
            raise

    def _ask_if_changed(self, now: float) -> None:
        self._due = now + LOOK_S
        found = published(self._control)
        if found != self._known or found is None or now >= self._idle_until:
            self._known, self._asked, self._pending = found, now, _in_background(self._look)


def published(control: Path) -> tuple[int, int] | None:
    """Return which control file is there, and the generation in it; None: no lbfwd runs there.

    An lbfwd that was started again has a file of its own, and counts from 1.
    """
    try:
        with control.open("rb") as file:
            inode = os.fstat(file.fileno()).st_ino
            return inode, published_generation(file.read(CONTROL_BYTES))
    except (OSError, ValueError):
        return None


def _in_background(work: Callable[[], T]) -> Future[T]:
    """Begin ``work`` in a thread that does not outlive the process, and is not waited for."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # whoever asks for the result gets it
            future.set_exception(error)

    threading.Thread(target=run, name="lbfwd-look", daemon=True).start()
    return future
