"""``lbfwd capture``: packets before and after encapsulation, as pcapng for tshark and Wireshark."""

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lbfwd.cli.ask import add_runtime_dir, look, seconds

if TYPE_CHECKING:
    from lbfwd.capture.aim import Seen
    from lbfwd.capture.pursuit import Pursuit
    from lbfwd.capture.run import Tally
    from lbfwd.capture.selection import Asked
    from lbfwd.capture.tap import Tap

HELP = "Write packets before and after encapsulation as pcapng: lbfwd capture | tshark -r -"

LEAST_SNAPLEN, MOST_SNAPLEN = 160, 1 << 18  # the headers of a tunnelled packet; a super-frame
MOST_RATE = 1_000_000


def configure(parser: argparse.ArgumentParser) -> None:
    """Add what to capture, and how much of it."""
    add_runtime_dir(parser)
    parser.add_argument(
        "-w", "--write", metavar="FILE", default="-", help="default: -, standard output"
    )
    what = parser.add_argument_group("what", "all that is given has to hold for a packet")
    what.add_argument("--service", metavar="NAME", default="", help="packets of this service")
    what.add_argument(
        "--backend", metavar="NAME", default="", help="towards this one: name, address, POOL/NAME"
    )
    what.add_argument(
        "--flow",
        nargs=3,
        metavar=("PROTO", "SRC[:PORT]", "DST[:PORT]"),
        help="of this flow, or of several where a port is left out",
    )
    what.add_argument(
        "--drop", metavar="REASON", default="", help="dropped for this reason, or any"
    )
    side = what.add_mutually_exclusive_group()
    side.add_argument("--before", action="store_true", help="before encapsulation only")
    side.add_argument("--after", action="store_true", help="after encapsulation only")
    _configure_limits(parser)


def _configure_limits(parser: argparse.ArgumentParser) -> None:
    from lbfwd.capture.program import MOST_SAMPLED

    much = parser.add_argument_group("how much")
    much.add_argument("--count", metavar="N", type=_number(1, 1 << 40), help="end after N packets")
    positive = seconds("more than 0", lambda value: value > 0)
    much.add_argument("--seconds", metavar="S", type=positive, help="end after this time")
    much.add_argument(
        "--sample", metavar="N", type=_number(1, MOST_SAMPLED), default=1, help="one packet in N"
    )
    much.add_argument(
        "--rate",
        metavar="N",
        type=_number(1, MOST_RATE),
        default=10_000,
        help="read at most N packets a second, default: %(default)s",
    )
    much.add_argument(
        "--snaplen",
        metavar="BYTES",
        type=_number(LEAST_SNAPLEN, MOST_SNAPLEN),
        default=MOST_SNAPLEN,
        help="keep so much of a packet, default: %(default)s",
    )


def run(args: argparse.Namespace) -> int:
    """Capture until a limit, Ctrl-C, or until the reader has gone."""
    from lbfwd.capture.selection import CaptureError

    if args.write == "-" and sys.stdout.isatty():
        return _fail("pcapng is not for terminals: add | tshark -r -, or --write FILE")
    if args.drop and args.after:
        return _fail("--drop with --after: a dropped packet is never encapsulated")
    try:
        return _capture(args)
    except CaptureError as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"{error.filename or args.write}: {error.strerror or error}")


def _capture(args: argparse.Namespace) -> int:
    from lbfwd.capture.aim import Aim
    from lbfwd.capture.follow import Follower
    from lbfwd.capture.pursuit import Pursuit
    from lbfwd.capture.run import Capture, Limits, step_back
    from lbfwd.tables import FILES

    runtime = Path(args.runtime_dir)
    step_back()
    # It notes the generation before the node is asked for the first time.
    follower = Follower(runtime / FILES[0], partial(_see, args))
    with ExitStack() as stack:
        aim = Aim(_asked(args), runtime, args.sample, args.snaplen)
        stack.callback(aim.close)
        pursuit = Pursuit(aim, follower, _Manners(not args.before).mind, _say)
        pursuit.begin(_see(args))
        out = _output(stack, args.write)
        about = shlex.join(["lbfwd", *sys.argv[1:]])
        limits = Limits(args.count or 0, args.seconds or 0.0, args.rate, args.snaplen)
        capture = Capture(pursuit.follow, aim.comment, limits, out)
        tally = capture.run(about, lambda: _say_started(aim.taps))
        _say_ended(tally, pursuit, aim.taps)
    return 0


def _see(args: argparse.Namespace) -> "Seen":
    """Ask the node what it is like now. Raises CaptureError."""
    from lbfwd.api.client import ApiError
    from lbfwd.capture.aim import Seen
    from lbfwd.capture.selection import CaptureError
    from lbfwd.config.warn import local_addresses

    try:
        return Seen(look(args), frozenset(entry.address for entry in local_addresses()))
    except ApiError as error:
        raise CaptureError("; ".join(map(str, error.problems))) from None


class _Manners:
    """Sees to it that workers are left alone, and warns of what they hide."""

    def __init__(self, after: bool) -> None:
        """``after``: packets after encapsulation are wanted."""
        self._after = after
        self._bypassing: list[str] = []

    def mind(self, seen: "Seen") -> None:
        """Take note of the workers as they are now."""
        from lbfwd.capture.run import keep_off

        workers = seen.status.workers
        keep_off([worker.cpu for worker in workers])
        before = self._bypassing
        self._bypassing = [str(w.cpu) for w in workers if w.settings.qdisc_bypass]
        if self._after and self._bypassing and self._bypassing != before:
            _say(
                "warning: qdisc_bypass is on for the workers on cpus "
                f"{', '.join(self._bypassing)}: what they send the kernel shows to nobody, so it "
                "is seen before encapsulation only"
            )


def _output(stack: ExitStack, path: str) -> int:
    if path == "-":
        return sys.stdout.fileno()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    stack.callback(os.close, fd)
    return fd


def _say_started(taps: Sequence["Tap"]) -> None:
    names = ", ".join(tap.name for tap in taps)
    _say(f"capturing on {names}; Ctrl-C ends it")


def _say_ended(tally: "Tally", pursuit: "Pursuit", taps: Sequence["Tap"]) -> None:
    if tally.ended:
        _say(tally.ended)
    if not tally.written:
        _say("no packet matched")
    _say(
        f"{tally.written} packets written: {tally.before} before encapsulation, {tally.after} after"
    )
    if pursuit.changes:
        _say(f"what is captured changed {pursuit.changes} times meanwhile, as told above")
    if pursuit.trouble:
        _say(f"it showed less than was asked for: {pursuit.trouble}")
    for tap in taps:
        _say(
            f"{tap.name}: {tap.received} packets passed the filter, {tap.dropped} of them were "
            "dropped by this capture's own socket (forwarding has lost none by that)"
        )


def _asked(args: argparse.Namespace) -> "Asked":
    from lbfwd.capture.selection import Asked

    return Asked(
        service=args.service,
        backend=args.backend,
        flow=tuple(args.flow) if args.flow else None,
        drop=args.drop,
        before=not args.after,
        after=not args.before,
    )


def _number(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text}: must be a number from {least} to {most}")
        return int(text)

    return parse


def _say(text: str) -> None:
    print(f"lbfwd capture: {text}", file=sys.stderr, flush=True)


def _fail(text: str) -> int:
    _say(text)
    return 1
