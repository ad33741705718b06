"""``lbfwd undrain BACKEND``."""

import argparse

from lbfwd.cli import operate

HELP = "Let a drained backend have new flows again."

configure = operate.configure


def run(args: argparse.Namespace) -> int:
    """Ask and print."""
    return operate.operate(args, "undrain")
