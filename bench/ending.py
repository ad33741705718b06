"""How a benchmark ends before its time."""

import signal
import sys
from types import FrameType


def end_cleanly_on_sigterm() -> None:
    """Have SIGTERM (of ``timeout``, say) end the process as Ctrl-C does.

    Namespaces and processes are then taken away. A generator that is left behind takes a core from
    all that is not real time.
    """

    def leave(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, leave)
