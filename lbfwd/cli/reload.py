"""``lbfwd reload``: the running lbfwd reads its configuration again."""

import argparse
import json
import math
import sys
from functools import partial

from lbfwd.cli.ask import add_options, change, seconds

HELP = "Make the running lbfwd read its configuration again; a bad one changes nothing."


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    parser.add_argument(
        "--max-moved",
        metavar="PERCENT",
        type=_percent,
        help="refuse when more buckets of a service would move: 5%%",
    )
    parser.add_argument(
        "--confirm",
        metavar="SECONDS",
        type=seconds("more than 0 and at most 86400", lambda value: 0 < value <= 86400),
        help="go back by itself after so long, unless 'lbfwd confirm' comes",
    )
    add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Reload and print what changed."""
    body = {"max_moved": args.max_moved, "confirm_s": args.confirm}
    return change(args, "/v1/reload", body, partial(show, confirm_s=args.confirm))


def show(body: bytes, confirm_s: float | None = None) -> None:
    """Print what a reload changed."""
    answer = json.loads(body)
    for item in answer["changes"]:
        print(f"{item['key']}: {item['old']} -> {item['new']}")
    print(f"reloaded: generation {answer['generation']}, {len(answer['changes'])} changes")
    if answer.get("not_kept"):
        print(f"not kept on disk: {answer['not_kept']}", file=sys.stderr)
    if confirm_s is not None and answer["changes"]:
        print(f"goes back in {confirm_s:g} s unless confirmed: lbfwd confirm")


def _percent(text: str) -> float:
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = math.nan
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError(f"{text!r}: a percentage from 0% to 100%")
    return value / 100
