"""``lbfwd reload``: the running lbfwd reads its configuration again."""

import argparse
import json

from lbfwd.cli.ask import add_options, ask

HELP = "Make the running lbfwd read its configuration again; a bad one changes nothing."

configure = add_options


def run(args: argparse.Namespace) -> int:
    """Reload and print what changed."""
    return ask(args, "POST", "/reload", _show)


def _show(body: bytes) -> None:
    answer = json.loads(body)
    for change in answer["changes"]:
        print(f"{change['key']}: {change['old']} -> {change['new']}")
    print(f"reloaded: generation {answer['generation']}, {len(answer['changes'])} changes")
