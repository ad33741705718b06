"""How much of the machine this process may use, and of its own time."""

import contextlib
import gc
import resource
from collections.abc import Iterator


def raise_descriptor_limit() -> int:
    """Allow as many descriptors as the hard limit says (getrlimit(2)): a probe has one."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def shorten_collections() -> None:
    """Have the garbage collector pass over what there is now from here on; blocks.

    Probes over HTTP make cyclic garbage all the time, and each full collection would go through the
    whole heap meanwhile, while nothing else of this process runs: 0.1 s once a second with 2,000
    backends. What goes away is freed all the same, cycles of it by the next call.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


@contextlib.contextmanager
def without_collections() -> Iterator[None]:
    """Keep the garbage collector from going through what is being made, again and again.

    For changes, which come one at a time.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
