"""In the guest: run what the host asks for over the virtio port, two jobs at a time.

A job is a line of JSON, ``{"job": 1, "argv": [...], "timeout_s": 60}``. Its output goes back as it
comes, in lines ``{"job": 1, "output": "..."}``; then ``{"job": 1, "exit": 0}``, which is None when
it took too long. Ends when the host closes the port.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from io import RawIOBase
from pathlib import Path

NAME = "jobs"
AT_A_TIME = 2  # as many as the guest has processors


class Agent:
    def __init__(self, outgoing: RawIOBase) -> None:
        self._outgoing = outgoing
        self._turn = threading.Lock()

    def say(self, **what: object) -> None:
        with self._turn:
            self._outgoing.write(json.dumps(what).encode() + b"\n")

    def run(self, job: int, argv: list[str], timeout_s: float) -> None:
        """Run one job; when it takes too long, it and all of its session's group are killed."""
        late = threading.Event()
        with subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process:

            def end() -> None:
                late.set()
                os.killpg(process.pid, signal.SIGKILL)

            timer = threading.Timer(timeout_s, end)
            timer.start()
            assert process.stdout is not None
            for line in process.stdout:
                self.say(job=job, output=line)
            code = process.wait()
            timer.cancel()
        self.say(job=job, exit=None if late.is_set() else code)


def port() -> str:
    """Return the device of the virtio port of our name (no udev makes links here)."""
    for path in Path("/sys/class/virtio-ports").iterdir():
        if (path / "name").read_text().strip() == NAME:
            return f"/dev/{path.name}"
    raise FileNotFoundError(f"no virtio port {NAME}")


def main() -> int:
    # A port can be opened once, and a buffered file of both directions wants to seek.
    descriptor = os.open(port(), os.O_RDWR)
    with (
        open(descriptor, "rb") as incoming,
        open(descriptor, "wb", buffering=0, closefd=False) as outgoing,
    ):
        agent = Agent(outgoing)
        agent.say(ready=True)
        jobs = ThreadPoolExecutor(AT_A_TIME)
        for line in incoming:
            jobs.submit(agent.run, **json.loads(line))
    # The host is gone: what runs ends with the machine.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
