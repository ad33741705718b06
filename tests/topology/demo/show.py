"""Runs ``lbfwd demo`` as a user would, reads what it prints, and finds whatever it left behind."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lbfwd.demo.lab import eventually

MARK = "LBFWD_TEST_DEMO"
RUN_TIMEOUT_S = 100.0
GONE_TIMEOUT_S = 15.0
COMMAND = (sys.executable, "-m", "lbfwd.cli.main", "demo")


class Show:
    """One run of the demo; what it prints goes to a file."""

    def __init__(self, argv: Sequence[str], path: str | None) -> None:
        self.mark = uuid.uuid4().hex
        self._output = tempfile.NamedTemporaryFile("w+")  # noqa: SIM115 - closed by close()
        env = os.environ | {MARK: self.mark} | ({"PATH": path} if path else {})
        self.process = subprocess.Popen(
            argv,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    @property
    def output(self) -> str:
        return Path(self._output.name).read_text()

    def wait_for(self, text: str) -> None:
        def said() -> bool:
            if text not in self.output and self.process.poll() is not None:
                raise AssertionError(f"ended ({self.process.returncode}):\n{self.output}")
            return text in self.output

        eventually(said, RUN_TIMEOUT_S, f"the demo says {text!r}")

    def end(self) -> int:
        return self.process.wait(RUN_TIMEOUT_S)

    def press_ctrl_c(self) -> None:
        """A terminal signals its whole foreground process group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def processes(self) -> dict[int, str]:
        """Command lines of all that this run started and that still lives, by process id."""
        wanted = f"{MARK}={self.mark}".encode()
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if wanted in (folder / "environ").read_bytes().split(b"\0"):
                    command = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
                    found[int(folder.name)] = command.decode().strip()
            except OSError:  # ended, or not ours to look at
                continue
        return found

    def sockets(self) -> int:
        """How many sockets the outer process holds; one of them is the leash."""

        def is_socket(fd: Path) -> bool:
            try:
                return str(fd.readlink()).startswith("socket:")
            except FileNotFoundError:  # closed since it was listed
                return False

        return sum(map(is_socket, Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def close(self) -> None:
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)
        self.process.wait(RUN_TIMEOUT_S)
        self._output.close()


@contextmanager
def demo(*options: str, wrap: Sequence[str] = (), path: str | None = None) -> Iterator[Show]:
    """Start the demo. ``wrap`` goes before its command; ``path`` replaces PATH."""
    show = Show([*wrap, *COMMAND, *options], path)
    try:
        yield show
    finally:
        show.close()


def assert_nothing_left(show: Show, before: Sequence[str]) -> None:
    """No process (so no namespace of its own either), and nothing on the machine."""
    eventually(lambda: not show.processes(), GONE_TIMEOUT_S, "every process is gone")
    assert traces() == before


def traces() -> list[str]:
    """What the demo would leave on the machine if it made it out there."""
    own = ("lbfwd-demo", "/run/netns/client", "/run/netns/router", "/run/netns/node")
    mounts = Path("/proc/self/mountinfo").read_text()
    places = ("/run/netns/client", "/run/netns/node", "/run/lbfwd-demo")
    return [word for word in own if word in mounts] + [p for p in places if Path(p).exists()]


def checks(output: str) -> dict[str, bool]:
    """What was checked, and whether it passed."""
    return {name.strip(): verdict == "PASS" for verdict, name in _checks(output)}


def _checks(output: str) -> list[tuple[str, str]]:
    return re.findall(r"^  (PASS|FAIL)  (.{33})", output, re.M)
