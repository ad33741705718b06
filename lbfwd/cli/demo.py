"""``lbfwd demo``: real traffic through lbfwd, in network namespaces of this machine."""

import argparse
import sys

HELP = (
    "Build a network of client, router, load balancer and three backends in namespaces, send real "
    "HTTP through it, change things meanwhile, and check everything. Takes less than a minute, as "
    "root or as an ordinary user; leaves nothing behind."
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--stay", action="store_true", help="keep it up at the end, to look around, until Ctrl-C"
    )


def run(args: argparse.Namespace) -> int:
    """Run the demo: 0 only if all of it went right, 130 when interrupted."""
    from lbfwd.demo import sandbox

    try:
        return sandbox.run(args.stay)
    except sandbox.SandboxError as error:
        print(f"lbfwd demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # before there was anything to stop
        return sandbox.INTERRUPTED
