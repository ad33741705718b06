"""``lbfwd backend join|pause|resume|status|leave``: the options, and what they become."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lbfwd.cli.ask import seconds

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from lbfwd.backend.join import JoinRequest
    from lbfwd.backend.request import Request
    from lbfwd.config.fleet import EtcdSettings

ACTIONS = ("join", "pause", "resume", "status", "leave")
DEFAULT_RUNTIME_DIR = "/run/lbfwd-backend"
DEFAULT_DRAIN_S = 30.0
MARGIN_S = 30.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    drain = seconds("0 to 86400", lambda value: 0 <= value <= 86_400)
    group = parser.add_argument_group("of join")
    group.add_argument("--pool", action="append", metavar="NAME", help="(again for more)")
    group.add_argument("--name", help="identity in the pools (default: the host name)")
    group.add_argument(
        "--address", help="where nodes send GRE to (default: that of the way to etcd or the node)"
    )
    group.add_argument("--weight", type=int, default=1, help="0 to 65535 (default: %(default)s)")
    group.add_argument(
        "--lease", type=int, default=10, metavar="SECONDS",
        help="a crash is noticed within so long: 2 to 300 (default: %(default)s)",
    )  # fmt: skip
    group.add_argument("--token-file", metavar="FILE", help="holds the pools' token, mode 0600")
    group.add_argument("--ca-file", metavar="FILE", help="who signed the certificates asked for")
    _add_etcd(parser)
    both = parser.add_argument_group("of join and those about it")
    both.add_argument(
        "--drain", type=drain, default=DEFAULT_DRAIN_S, metavar="SECONDS",
        help="at the end, wait so long for live flows to end (default: %(default)g)",
    )  # fmt: skip
    both.add_argument(
        "--runtime-dir", metavar="DIR", default=DEFAULT_RUNTIME_DIR, help="default: %(default)s"
    )
    both.add_argument("--json", action="store_true", help="print the answer as JSON")


def _add_etcd(parser: argparse.ArgumentParser) -> None:
    etcd = parser.add_argument_group("of join, to register in etcd")
    etcd.add_argument("--etcd", action="append", metavar="URL", help="(again for more members)")
    etcd.add_argument("--prefix", default="/lbfwd/", help="of keys (default: %(default)s)")
    etcd.add_argument("--user", default="", help="of etcd; with --password-file")
    for option in ("--password-file", "--certificate-file", "--key-file"):
        etcd.add_argument(option, metavar="FILE", default="", help="as in the nodes' [etcd]")


def request(args: argparse.Namespace, urls: "Sequence[str]") -> "JoinRequest":
    """Check what is asked. Raises BackendError with every problem, one a line."""
    import socket

    from lbfwd.backend.join import JoinRequest, parse_node
    from lbfwd.backend.request import BackendError
    from lbfwd.config.values import MAX_WEIGHT, parse_address, parse_name
    from lbfwd.fleet.registration import LEASE_S

    check = _Checks()
    pools = tuple(check("--pool", parse_name, pool) for pool in dict.fromkeys(args.pool or ()))
    name = check("--name", parse_name, args.name or socket.gethostname())
    address = check("--address", parse_address, args.address) if args.address else None
    nodes = tuple(check("--node", parse_node, url) for url in urls)
    check.true("--pool: required", bool(pools))
    check.true(f"--weight {args.weight}: 0 to {MAX_WEIGHT}", 0 <= args.weight <= MAX_WEIGHT)
    check.true(
        f"--lease {args.lease}: {LEASE_S[0]} to {LEASE_S[-1]} seconds", args.lease in LEASE_S
    )
    check.true("either --etcd or --node https://HOST:PORT", bool(args.etcd) != bool(nodes))
    check.true("--token-file: required with --node https://…", not nodes or args.token_file)
    etcd = _etcd(args, check) if args.etcd else None
    if check.problems:
        raise BackendError("\n".join(check.problems))
    return JoinRequest(
        pools, name, address, args.weight, args.lease, args.drain, Path(args.runtime_dir), etcd,
        nodes, _path(args.token_file), _path(args.ca_file),
    )  # fmt: skip


class _Checks:
    """Gathers what is wrong with options."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def __call__(self, option: str, parse: "Any", value: str) -> "Any":
        """Return what ``parse`` makes of a value; what it refuses is a problem."""
        try:
            return parse(value)
        except ValueError as error:
            self.problems.append(f"{option} {value}: {error}")
            return None

    def true(self, rule: str, holds: object) -> None:
        """Note a rule that does not hold."""
        if not holds:
            self.problems.append(rule)


def _etcd(args: argparse.Namespace, check: _Checks) -> "EtcdSettings | None":
    from pydantic import ValidationError

    from lbfwd.config.fleet import EtcdSettings

    files = ("ca_file", "certificate_file", "key_file", "user", "password_file")
    own = {name: getattr(args, name) or "" for name in files}
    try:
        return EtcdSettings(endpoints=tuple(args.etcd), prefix=args.prefix, **own)
    except ValidationError as error:
        for found in error.errors():
            option = "--etcd" if found["loc"][0] == "endpoints" else f"--{found['loc'][0]}"
            check.problems.append(f"{option}: {found['msg'].removeprefix('Value error, ')}")
        return None


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


def run(unwrap: "Request | None", join: "JoinRequest") -> None:
    """Stay registered, and unwrap packets where that is asked for. Raises BackendError."""
    from functools import partial

    from lbfwd.backend.join import Joined, run_alone

    if unwrap is None:
        run_alone(join)
        return
    from lbfwd.backend.run import run as run_backend

    run_backend(unwrap, partial(Joined, join))


def tell(args: argparse.Namespace) -> int:
    """Ask the running join. Returns the exit code."""
    from lbfwd.api.client import ApiError
    from lbfwd.api.client import request as ask
    from lbfwd.backend.control import SOCKET

    method = "GET" if args.action == "status" else "POST"
    body = {"drain_s": args.drain} if args.action == "leave" else None
    path = Path(args.runtime_dir) / SOCKET
    try:
        answer = ask(path, method, f"/v1/{args.action}", body, args.drain + MARGIN_S)
    except ApiError as error:
        print(*error.problems, sep="\n", file=sys.stderr)
        return 1
    return _show(answer, args)


def _show(answer: bytes, args: argparse.Namespace) -> int:
    import json

    if args.json:
        print(answer.decode())
    elif args.action == "leave":
        print(_ending(json.loads(answer), args.drain))
    else:
        print(*_lines(json.loads(answer)), sep="\n")
    return 0


def _ending(ending: "Any", drain_s: float) -> str:
    drained = ending["drained"]
    left = "left: no live flow" if drained else f"left after {drain_s:g} s, live flows or not"
    unheard = ", ".join(ending["unheard"])
    return f"{left}; not to be asked: {unheard}" if unheard else left


def _lines(report: "Any") -> "list[str]":
    lines = [f"not renewed: {report['problem']}"] if report["problem"] else []
    for pool in report["pools"]:
        own = f"{pool['pool']}/{pool['name']} {pool['address']} weight {pool['weight']}"
        lines.append(f"{own}: {pool['state']}")
        for node in pool["nodes"]:
            flows = "" if node["flows"] is None else f", {node['flows']} live flows"
            reason = f" ({node['reason']})" if node["reason"] else ""
            lines.append(f"  {node['node']}: {node['state']}{flows}{reason}")
    return lines
