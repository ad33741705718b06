"""How much of the machine this process may use, and of its own time."""

import asyncio
import contextlib
import gc
import resource
from collections.abc import Iterator

LARGE = 50_000  # objects: it is short to go through fewer
CHANGES = 100  # large ones, between two collections of everything, each of which blocks
COLLECT_S = 1.0  # after a change: its answer goes first


def raise_descriptor_limit() -> int:
    """Allow as many descriptors as the hard limit says (getrlimit(2)): a probe has one."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def collect_all() -> None:
    """Free all cyclic garbage, and have collections pass over what there is now; blocks.

    It goes through the whole heap, while nothing else of this process runs.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


class Heap:
    """Keeps what is configured out of the garbage collector's way.

    A collection goes through all that it does not pass over, and nothing else runs meanwhile:
    probes would be late after each change. A configuration holds no cycles: what is replaced goes
    without a collection.
    """

    def __init__(self) -> None:
        """Nothing has changed yet."""
        self._large = 0

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Make no collection within; after a large change pass over what there is. One at a time.

        The garbage of that time is passed over, too, so after ``CHANGES`` of them all is collected.
        """
        gc.disable()
        try:
            yield
        finally:
            if len(gc.get_objects()) > LARGE:
                self._pass_over()
            gc.enable()

    def _pass_over(self) -> None:
        gc.freeze()
        self._large += 1
        if self._large % CHANGES == 0:
            asyncio.get_running_loop().call_later(COLLECT_S, collect_all)
