"""``lbfwd run``: the load balancer, in the foreground."""

import argparse
import sys
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from lbfwd.cli.ask import add_runtime_dir

HELP = "Forward the VIPs' packets to their backends until SIGTERM or SIGINT."

DEFAULT_CONFIG = "/etc/lbfwd/lbfwd.toml"
DEFAULT_STATE_DIR = "/var/lib/lbfwd"
_FLAG = "workers."


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options; each ``[workers]`` key is one, which overrides the file."""
    from lbfwd.config import Workers

    parser.add_argument(
        "-c", "--config", metavar="FILE", default=DEFAULT_CONFIG, help="default: %(default)s"
    )
    add_runtime_dir(parser)
    parser.add_argument(
        "--state-dir",
        metavar="DIR",
        default=DEFAULT_STATE_DIR,
        help="for what survives a restart, such as drained backends (default: %(default)s)",
    )
    group = parser.add_argument_group(
        "workers", "each overrides the key of [workers], but not that of a [[worker]]"
    )
    for name, field in Workers.model_fields.items():
        group.add_argument(
            f"--{name.replace('_', '-')}",
            dest=_FLAG + name,
            default=argparse.SUPPRESS,
            **_argument(field.annotation),
        )


def run(args: argparse.Namespace) -> int:
    """Run until it is stopped."""
    import asyncio

    import uvloop

    from lbfwd.api import readonly, registration
    from lbfwd.api.server import admin_socket
    from lbfwd.config import ConfigError
    from lbfwd.supervisor.errors import SupervisorError
    from lbfwd.supervisor.run import Directories, Doors, serve

    doors = Doors(admin_socket, readonly.runner, registration.listening)
    directories = Directories(Path(args.runtime_dir), Path(args.state_dir))
    main = serve(Path(args.config), overrides(args), directories, doors)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main)
    except ConfigError as error:
        print(*error.problems, sep="\n", file=sys.stderr)
        return 1
    except SupervisorError as error:
        print(f"lbfwd: {error}", file=sys.stderr)
        return 1
    return 0


def overrides(args: argparse.Namespace) -> dict[str, object]:
    """Return the ``[workers]`` keys that the command line sets."""
    return {
        name.removeprefix(_FLAG): value
        for name, value in vars(args).items()
        if name.startswith(_FLAG)
    }


def _argument(kind: Any) -> dict[str, Any]:
    """Say how argparse reads a key of this type; ranges are checked with the configuration."""
    if kind is bool:
        return {"action": argparse.BooleanOptionalAction}
    if get_origin(kind) is Literal:
        return {"choices": get_args(kind)}
    if get_origin(kind) is tuple:
        return {"type": _numbers, "metavar": "N,N,…"}
    return {"type": int, "metavar": "N"}


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: numbers, separated by commas") from None
