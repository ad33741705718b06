"""``lbfwd enable BACKEND``."""

import argparse

from lbfwd.cli import operate

HELP = "Take a disabled backend into service again."

configure = operate.configure


def run(args: argparse.Namespace) -> int:
    """Ask and print."""
    return operate.operate(args, "enable")
