"""One run of pktgen: set up, start, wait, stop, read, remove. Whatever happens, nothing is left."""

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from bench.pktgen import answers
from bench.pktgen.answers import Sent
from bench.pktgen.plan import Command, Sender
from bench.pktgen.proc import CONTROL, THREAD, Files, RefusedError, reason

PATIENCE_S = 15.0  # a thread looks at its orders ten times a second, between two bursts
ASK_AGAIN_S = 0.2
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def look(files: Files, cpus: Sequence[int]) -> None:
    """See that pktgen is there, has threads for these cores, and is idle. Raises RefusedError."""
    threads = _threads(files)
    for cpu in cpus:
        if f"{THREAD}{cpu}" not in threads:
            raise RefusedError(
                f"--cpus {cpu}: pktgen has no thread for it, but {', '.join(threads)}"
            )
    busy = [device for name in threads for device in answers.thread(files.read(name)).running]
    if busy:
        raise RefusedError(
            f"pktgen is sending already: {', '.join(busy)}; to stop it: "
            f"echo stop > {files.directory / CONTROL}"
        )


def run(
    files: Files, commands: Sequence[Command], senders: Sequence[Sender], seconds: float
) -> tuple[Sent, ...]:
    """Send until all threads have sent their packets or, without a number, for so long.

    Raises RefusedError.
    """
    starter = _Starter(files, [sender.device for sender in senders])
    try:
        clear(files)  # what a run that was killed has left
        for command in commands:
            give(files, command)
        starter.start()
        starter.ended.wait(None if all(sender.packets for sender in senders) else seconds)
        _stop(files, starter)
        return tuple(_sent(files, sender.device) for sender in senders)
    finally:
        with _uninterrupted():
            try:
                _stop(files, starter)
            finally:
                clear(files)


def give(files: Files, command: Command) -> None:
    """Write one command; see that pktgen did what it says. Raises RefusedError with its answer."""
    refused = f"{files.directory / command.file}: refused {command.text!r}"
    try:
        files.write(command.file, command.text)
    except OSError as error:
        raise RefusedError(
            f"{refused}: {reason(error)}{_complaint(files, command.file)}"
        ) from error
    said = answers.result(files.read(command.file))
    if not said.startswith(answers.expected(command.text)):
        raise RefusedError(f"{refused}; pktgen says: {said}")


def _complaint(files: Files, file: str) -> str:
    """Return the result in a file, unless it is still that of a command that went well."""
    if file not in files.names():
        return ""
    said = answers.result(files.read(file))
    return "" if said.startswith("OK:") or said in ("NA", "Idle") else f"; pktgen says: {said}"


def clear(files: Files) -> None:
    """Remove all devices from all threads. Raises RefusedError."""
    _control(files, "reset")
    deadline = time.monotonic() + PATIENCE_S
    while left := [name for name in _threads(files) if answers.thread(files.read(name)).devices]:
        if time.monotonic() > deadline:
            raise RefusedError(f"{files.directory}: {', '.join(left)}: devices are not removed")
        time.sleep(ASK_AGAIN_S)


def _threads(files: Files) -> list[str]:
    return sorted(name for name in files.names() if name.startswith(THREAD))


def _control(files: Files, command: str) -> None:
    try:
        files.write(CONTROL, command)
    except OSError as error:
        raise RefusedError(
            f"{files.directory / CONTROL}: refused {command!r}: {reason(error)}"
        ) from error


class _Starter(threading.Thread):
    """Writes ``start``, which does not return before all is sent, and sees that it is."""

    def __init__(self, files: Files, devices: Sequence[str]) -> None:
        super().__init__(daemon=True)  # a thread of pktgen that hangs must not hold us
        self._files, self._devices = files, devices
        self.error: RefusedError | None = None
        # Not is_alive(): in Python 3.11 a join() that is interrupted declares the thread dead.
        self.ended = threading.Event()

    def run(self) -> None:
        try:
            _control(self._files, "start")
            # On a busy machine it does return before: when no thread has begun within 125 ms.
            while not all(answers.ended(self._files.read(device)) for device in self._devices):
                time.sleep(ASK_AGAIN_S)
        except RefusedError as error:
            self.error = error
        finally:
            self.ended.set()


def _stop(files: Files, starter: _Starter) -> None:
    """Stop what was started, if it was, and wait until it has stopped. Raises RefusedError."""
    if starter.ident is None:
        return
    deadline = time.monotonic() + PATIENCE_S
    while not starter.ended.is_set():
        if time.monotonic() > deadline:
            raise RefusedError(f"{files.directory / CONTROL}: pktgen does not stop")
        # Again and again: a thread that finds both orders obeys "stop" before "start".
        _control(files, "stop")
        starter.ended.wait(ASK_AGAIN_S)
    if starter.error:
        raise starter.error


def _sent(files: Files, device: str) -> Sent:
    try:
        return answers.sent(files.read(device))
    except ValueError as error:
        raise RefusedError(f"{files.directory / device}: the run failed: {error}") from error


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let no signal interrupt what ends a run."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
