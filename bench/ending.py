"""How a benchmark ends before its time."""

import signal
import sys
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM)


def end_cleanly() -> None:
    """Have Ctrl-C and SIGTERM (of ``timeout``, say) end the process in order, however often told.

    Namespaces and processes are then taken away, which takes its time. A generator that is left
    behind takes a core from all that is not real time.
    """

    def leave(number: int, _frame: FrameType | None) -> None:
        for each in ENDING:
            signal.signal(each, signal.SIG_IGN)
        sys.exit(128 + number)

    for number in ENDING:
        signal.signal(number, leave)
