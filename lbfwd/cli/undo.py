"""``lbfwd undo``: the running lbfwd returns to the configuration before the last one."""

import argparse

from lbfwd.cli import reload
from lbfwd.cli.ask import add_options, change

HELP = "Return to the configuration before the last one, whatever the file says now."

configure = add_options


def run(args: argparse.Namespace) -> int:
    """Undo and print what changed."""
    return change(args, "/v1/undo", {}, _show)


def _show(body: bytes) -> None:
    reload.show(body)
    print("the file is as it was: a reload or a restart takes up what it says")
