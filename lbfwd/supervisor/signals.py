"""What a service manager or a terminal says to the supervisor: stop, reload."""

import asyncio
import signal

from lbfwd.supervisor import log


class Signals:
    """SIGTERM and SIGINT cancel the main task, once; SIGHUP asks for a reload.

    Whoever sends a second one does not want to wait until traffic has moved away.
    """

    STOP = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        """Take the signals over; the caller is the main task."""
        self.stopped = False
        self.hangup = asyncio.Event()
        self.hurried = asyncio.Event()
        self._main = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        for number in self.STOP:
            self._loop.add_signal_handler(number, self._stop, number)
        self._loop.add_signal_handler(signal.SIGHUP, self.hangup.set)

    def restore(self) -> None:
        """Give the signals back; a process that ends because of one needs no second."""
        for number in (*self.STOP, signal.SIGHUP):
            self._loop.remove_signal_handler(number)
            if self.stopped:
                signal.signal(number, signal.SIG_IGN)

    def _stop(self, number: signal.Signals) -> None:
        # A second Ctrl-C must not break the clean-up that the first one has begun.
        if not self.stopped and self._main is not None:
            self.stopped = True
            log.get().info("stopping", signal=number.name)
            self._main.cancel()
        else:
            self.hurried.set()
