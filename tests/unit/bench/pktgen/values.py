"""A pktgen for tests: it answers with what the kernel was recorded to say."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.pktgen.options import Options, parse
from bench.pktgen.proc import Files, Interface, RefusedError

RECORDED = Path(__file__).parent / "recorded"
ERRORS: list[dict[str, Any]] = json.loads((RECORDED / "errors.json").read_text())
MAC, VIP, PORT = "02:00:00:00:00:01", "192.0.2.10", "53"
VETH = Interface("eth0", tx_queues=4, mtu=1500, carrier=True)


def recorded(state: str, file: str) -> str:
    return (RECORDED / state / file).read_text()


def options(*more: str, interface: str = "eth0", vip: str = VIP) -> Options:
    return parse([interface, "--mac", MAC, "--vip", vip, "--port", PORT, *more])[0]


class Kernel(Files):
    """Two threads. ``start`` returns after a ``stop``; ``refuse``: a command of errors.json.

    ``deaf``: how many times ``stop`` is overlooked; ``hasty``: ``start`` returns at once, before
    anything is sent; ``on``: called when a command arrives.
    """

    def __init__(self, refuse: str = "", deaf: int = 0, hasty: bool = False) -> None:
        super().__init__(Path("/proc/net/pktgen"))
        self.written: list[tuple[str, str]] = []
        self.devices: dict[str, str] = {}  # file → its text
        self.threads = {f"kpktgend_{n}": recorded("idle", f"kpktgend_{n}") for n in (0, 1)}
        self.on: dict[str, Callable[[], None]] = {}
        self.hasty = hasty
        self.end = recorded("stopped", "eth0@0")
        self._refuse, self._deaf = refuse, deaf
        self._stopped = threading.Event()

    def names(self) -> frozenset[str]:
        return frozenset({"pgctrl", *self.threads, *self.devices})

    def read(self, name: str) -> str:
        try:
            return (self.threads | self.devices)[name]
        except KeyError:
            raise RefusedError(f"{name}: No such file or directory") from None

    def write(self, name: str, command: str) -> None:
        self.written.append((name, command))
        self.on.get(command, lambda: None)()
        if name == "pgctrl":
            {"start": self._start, "stop": self._stop, "reset": self._reset}[command]()
        elif self._refuse and command == self._refuse:
            self._say_error(name)
        elif name in self.threads:
            device = command.removeprefix("add_device ")
            self.threads[name] = f"Running: \nStopped: {device} \nResult: OK: add_device={device}\n"
            self.devices[device] = recorded("added", "eth0@0")
        else:
            self._say(name, _echo(command))

    def _start(self) -> None:
        if not self.hasty:
            self._stopped.wait(20)
            self._end()

    def _end(self) -> None:
        self.devices = dict.fromkeys(self.devices, self.end)

    def _stop(self) -> None:
        self._deaf -= 1
        if self._deaf < 0:
            self._stopped.set()
            self._end()

    def _reset(self) -> None:
        self.devices.clear()
        self.threads = {name: recorded("reset", "kpktgend_0") for name in self.threads}

    def finish(self) -> None:
        """Have sent all that was to be sent."""
        self._stopped.set()

    def _say(self, name: str, result: str) -> None:
        place = self.devices if name in self.devices else self.threads
        head, mark, _ = place[name].rpartition("Result: ")
        place[name] = f"{head}{mark}{result}\n"

    def _say_error(self, name: str) -> None:
        (one,) = (one for one in ERRORS if one["command"] == self._refuse and one["content"])
        said = one["content"].rpartition("Result: ")[2].strip()
        # A command that was overlooked left the result of another.
        if self._refuse.split()[0] in said or "unknown" in said or "ERROR" in said:
            self._say(name, said)
        if one["errno"]:
            raise OSError(one["errno"], f"errno {one['errno']}")


def _echo(command: str) -> str:
    """Answer as the kernel did (recorded: ``OK: dstmac …``, ``OK: flags=0x80``)."""
    name, value = command.split()
    if name == "dst_mac":
        return f"OK: dstmac {value}"
    return "OK: flags=0x80" if name == "flag" else f"OK: {name}={value}"
