"""``lbfwd withdraw``: take back the VIPs that a dead lbfwd still announces."""

import argparse
import sys
from pathlib import Path

from lbfwd.cli.ask import add_runtime_dir

HELP = (
    "Take back the VIPs that a dead lbfwd still announces, unless its workers still forward. "
    "A service manager runs it when lbfwd has ended (systemd: ExecStopPost=)."
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_runtime_dir(parser)
    parser.add_argument(
        "--force", action="store_true", help="also while workers without a supervisor forward"
    )


def run(args: argparse.Namespace) -> int:
    """Remove lbfwd's routes and say which, or why not."""
    from lbfwd.net.announce import AnnounceError, enforce
    from lbfwd.supervisor.errors import SupervisorError
    from lbfwd.supervisor.runtime import RuntimeDirectory

    try:
        # Locked meanwhile: no lbfwd starts that would announce what is taken back here.
        runtime = RuntimeDirectory.take(Path(args.runtime_dir))
        try:
            if runtime.orphans and not args.force:
                pids = ", ".join(str(worker.pid) for worker in runtime.orphans)
                print(f"workers still forward (pid {pids}): nothing is withdrawn; see --force")
                return 0
            done = enforce(frozenset())
        finally:
            runtime.close()
    except (SupervisorError, AnnounceError) as error:
        print(f"lbfwd: {error}", file=sys.stderr)
        return 1
    for table, vip in sorted(done.removed, key=str):
        print(f"withdrawn: {vip} (table {table})")
    for (table, vip), reason in done.failed.items():
        print(f"lbfwd: {vip} (table {table}): {reason}", file=sys.stderr)
    return 1 if done.failed else 0
