"""``lbfwd top``: rates and health, live, on one screen."""

import argparse
import json
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager

from lbfwd.cli.ask import add_runtime_dir, look, seconds

HELP = "Show live what the running lbfwd does. q quits."
QUIT = b"qQ\x04"  # and end of file


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_runtime_dir(parser)
    parser.add_argument(
        "--interval",
        metavar="SECONDS",
        type=seconds("0.2 to 60", lambda value: 0.2 <= value <= 60),
        default=1.0,
        help="between looks: 0.2 to 60 (default: %(default)s)",
    )
    parser.add_argument("--once", action="store_true", help="print one screen and end")
    parser.add_argument("--json", action="store_true", help="print one sample as JSON and end")


def run(args: argparse.Namespace) -> int:
    """Look twice for rates; then on and on, where there is a terminal."""
    from lbfwd.api.client import ApiError

    live = not args.json and not args.once
    if live and not (sys.stdin.isatty() and sys.stdout.isatty()):
        print("lbfwd top: no terminal; --once or --json prints one sample", file=sys.stderr)
        return 2
    try:
        if live:
            _live(args)
        else:
            _one(args)
    except KeyboardInterrupt:
        return 0  # another way to quit
    except ApiError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _one(args: argparse.Namespace) -> None:
    from rich.console import Console

    from lbfwd.cli.rates import sample
    from lbfwd.cli.top_screen import screen

    before = look(args)
    time.sleep(args.interval)
    after = look(args)
    found = sample(before, after)
    if args.json:
        print(json.dumps(found.as_dict(after)))
        return
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(screen(after, found, console.width, height=None))


def _live(args: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.live import Live

    from lbfwd.cli.rates import sample
    from lbfwd.cli.top_screen import screen

    console = Console()
    before = look(args)
    after = before
    with _keys(), Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            width, height = console.size
            picture = screen(after, sample(before, after), width, height)
            live.update(picture, refresh=True)
            if _pressed(args.interval):
                return
            before, after = after, look(args)


def _pressed(longest_s: float) -> bool:
    """Wait so long at most for a key that quits; True: it came, or the terminal is gone."""
    deadline = time.monotonic() + longest_s
    while (left := deadline - time.monotonic()) > 0:
        ready, _, _ = select.select([sys.stdin], [], [], left)
        if ready:
            typed = os.read(sys.stdin.fileno(), 64)
            if not typed or any(key in QUIT for key in typed):
                return True
    return False


@contextmanager
def _keys() -> Iterator[None]:
    """Read keys as they are pressed, and not show them (termios(3), cbreak mode)."""
    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
