"""``lbfwd reload``: have the running lbfwd read its configuration again."""

import argparse
import json
import sys
from pathlib import Path

from lbfwd.cli.run import add_runtime_dir

HELP = "Make the running lbfwd read its configuration again; a bad one changes nothing."


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_runtime_dir(parser)
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")


def run(args: argparse.Namespace) -> int:
    """Reload and print what changed."""
    from lbfwd.api.client import ApiError, request
    from lbfwd.supervisor.runtime import ADMIN_SOCKET

    try:
        body = request(Path(args.runtime_dir) / ADMIN_SOCKET, "POST", "/reload")
    except ApiError as error:
        print(*error.problems, sep="\n", file=sys.stderr)
        return 1
    if args.json:
        print(body.decode())
        return 0
    answer = json.loads(body)
    for change in answer["changes"]:
        print(f"{change['key']}: {change['old']} -> {change['new']}")
    print(f"reloaded: generation {answer['generation']}, {len(answer['changes'])} changes")
    return 0
