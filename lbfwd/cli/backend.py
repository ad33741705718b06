"""``lbfwd backend``: make this machine a backend until it is stopped, then undo everything."""

import argparse
import sys

from lbfwd.cli import backend_join
from lbfwd.cli.backend_join import ACTIONS

HELP = (
    "Make this machine a backend: unwrap GRE from the nodes, own the VIPs, answer clients;"
    " and register it in pools."
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    parser.add_argument(
        "action",
        nargs="?",
        choices=ACTIONS,
        help="join: register as well; the others are about a running join",
    )
    _add_unwrapping(parser)
    backend_join.configure(parser)
    parser.set_defaults(usage=parser.error)


def _add_unwrapping(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--vip",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="virtual IP to own (again for more); join without any only registers",
    )
    parser.add_argument(
        "--node",
        action="append",
        default=[],
        metavar="ADDRESS|URL",
        help="load balancer to accept GRE from: its outer source address (again for more); with"
        " join also where to register: https://HOST:PORT",
    )
    parser.add_argument(
        "--mtu",
        type=int,
        metavar="BYTES",
        help="MTU of the path from the nodes to here (default: of the route back to them)",
    )


def run(args: argparse.Namespace) -> int:
    """Run in the foreground, or tell the one that runs. Returns the exit code."""
    if args.action in (None, "join"):
        return _run(args)
    return backend_join.tell(args)


def _run(args: argparse.Namespace) -> int:
    from lbfwd.backend.request import BackendError, parse
    from lbfwd.supervisor import log

    urls = [node for node in args.node if "://" in node]
    addresses = [node for node in args.node if "://" not in node]
    if not args.action and not (args.vip and args.node):
        args.usage("--vip and --node are required")
    if not args.action and (urls or args.pool or args.etcd):
        args.usage("--node https://…, --pool and --etcd are about registering: lbfwd backend join")
    if args.vip and not addresses:
        args.usage("--vip needs --node ADDRESS: from whom GRE is accepted")
    log.configure()
    try:
        join = backend_join.request(args, urls) if args.action else None
        request = parse(args.vip, addresses, args.mtu) if args.vip else None
        if join is not None:
            backend_join.run(request, join)
        elif request is not None:
            from lbfwd.backend.run import run as run_backend

            run_backend(request)
    except BackendError as error:
        for line in str(error).splitlines():
            print(f"lbfwd backend: {line}", file=sys.stderr)
        return 1
    return 0
