"""``lbfwd disable BACKEND``."""

import argparse

from lbfwd.cli import operate

HELP = "Take a backend out of service at once; its flows go elsewhere."

configure = operate.configure


def run(args: argparse.Namespace) -> int:
    """Ask and print."""
    return operate.operate(args, "disable")
