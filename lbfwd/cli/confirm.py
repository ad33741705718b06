"""``lbfwd confirm``: keep what ``lbfwd reload --confirm`` has taken up."""

import argparse

from lbfwd.cli.ask import add_options, change

HELP = "Keep the configuration that 'lbfwd reload --confirm' has taken up."

configure = add_options


def run(args: argparse.Namespace) -> int:
    """Confirm."""
    return change(args, "/v1/confirm", {}, _show)


def _show(_body: bytes) -> None:
    print("confirmed")
