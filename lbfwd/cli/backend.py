"""``lbfwd backend``: make this machine a backend until it is stopped, then undo everything."""

import argparse
import sys

HELP = "Make this machine a backend: unwrap GRE from the nodes, own the VIPs, answer clients."


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    parser.add_argument(
        "--vip",
        action="append",
        required=True,
        metavar="ADDRESS",
        help="virtual IP to own (again for more)",
    )
    parser.add_argument(
        "--node",
        action="append",
        required=True,
        metavar="ADDRESS",
        help="load balancer to accept GRE from: its outer source address (again for more)",
    )
    parser.add_argument(
        "--mtu",
        type=int,
        metavar="BYTES",
        help="MTU of the path from the nodes to here (default: of the route back to them)",
    )


def run(args: argparse.Namespace) -> int:
    """Run in the foreground. Returns the exit code."""
    from lbfwd.backend.request import BackendError, parse
    from lbfwd.supervisor import log

    log.configure()
    try:
        request = parse(args.vip, args.node, args.mtu)
        from lbfwd.backend.run import run as run_backend

        run_backend(request)
    except BackendError as error:
        for line in str(error).splitlines():
            print(f"lbfwd backend: {line}", file=sys.stderr)
        return 1
    return 0
