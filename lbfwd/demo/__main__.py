"""The inside of the demo: ``lbfwd demo`` starts this as the first process of its namespaces.

The leash is a socket to ``lbfwd demo``: when it closes, for whatever reason, the demo stops.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

from lbfwd.demo.lab import Lab, LabError
from lbfwd.demo.sandbox import INTERRUPTED
from lbfwd.demo.scenario import WORKERS, Demo
from lbfwd.demo.screen import Screen
from lbfwd.demo.services import worker_cpus

RUN = Path("/run")


def main() -> int:
    """Run the demo. Returns the exit code: 0 only if every check passed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--leash", type=int, required=True)
    parser.add_argument("--way", required=True)
    parser.add_argument("--enter", required=True)
    parser.add_argument("--stay", action="store_true")
    args = parser.parse_args()
    screen = Screen()
    # A shell that starts commands in the background has them ignore SIGINT; the leash needs it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with socket.socket(fileno=args.leash) as leash:
            enter = args.enter.format(pid=_greet(leash))
            threading.Thread(target=_obey, args=(leash,), daemon=True).start()
            return _demo(screen, args.way, enter if args.stay else "")
    except LabError as error:
        screen.error(str(error))
        return 1
    except KeyboardInterrupt:
        screen.error("stopped half-way; everything is taken away again")
        return INTERRUPTED


def _demo(screen: Screen, way: str, enter: str) -> int:
    """Run and, if ``enter`` says how to get in, stay until interrupted."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "lbfwd-demo", str(RUN)], check=True)
    directory = RUN / "lbfwd-demo"
    directory.mkdir(mode=0o700)
    screen.intro(way, len(worker_cpus(WORKERS)))
    with Lab(prefix="") as lab:
        demo = Demo(lab, directory, screen)
        found = demo.run()
        if enter:
            screen.summary(demo.tally, found)
            screen.hints(enter)
            _wait_for_interrupt()
            found.append(demo.stop())
            screen.checks(found[-1:])
        else:
            found.append(demo.stop())
            screen.summary(demo.tally, found)
    return 0 if all(check.good for check in found) else 1


def _wait_for_interrupt() -> None:
    try:
        while True:
            signal.pause()
    except KeyboardInterrupt:
        return


def _greet(leash: socket.socket) -> str:
    """Learn our process id as it is known outside: the one to enter these namespaces by."""
    leash.send(b"\0")
    return leash.recv(32).decode()


def _obey(leash: socket.socket) -> None:
    """Interrupt the demo when the leash is let go."""
    leash.recv(1)
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    sys.exit(main())
