"""``lbfwd VERB``: a table of verbs; only the chosen verb's module is imported.

A worker process re-imports this module (multiprocessing, spawn), so it must stay light. A verb's
module has ``HELP``, ``configure(parser)`` and ``run(arguments) -> exit code``.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from lbfwd import __version__

VERBS = {
    "run": "run the load balancer in the foreground",
    "check": "check a configuration file and change nothing",
    "plan": "show what a reload would do and change nothing",
    "reload": "make the running load balancer read its configuration again",
    "confirm": "keep what reload --confirm has taken up",
    "push": "show a shared configuration to all nodes of a fleet and write it to etcd",
    "undo": "return to the configuration before the last one",
    "drain": "give a backend no new flows",
    "undrain": "let a drained backend have new flows again",
    "disable": "take a backend out of service at once",
    "enable": "take a disabled backend into service again",
    "status": "show what the running load balancer does",
    "top": "show it live",
    "trace": "tell where a flow goes, and why",
    "capture": "write packets before and after encapsulation as pcapng",
    "doctor": "find out what is wrong with this node or backend",
    "tune": "set the kernel and the network cards up for the workers",
    "withdraw": "take back the VIPs that a dead lbfwd still announces",
    "import": "convert the virtual servers of a keepalived.conf",
    "demo": "balance real traffic in network namespaces on this machine",
    "backend": "make this machine a backend",
}
_EXIT_CODES = "exit codes: 0 done, 1 refused or failed (the reason is on stderr), 2 wrong usage"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; ``arguments`` default to those of the process. Returns the exit code.

    Raises SystemExit, as argparse does: 2 for wrong usage, 0 after ``--help`` and ``--version``.
    """
    try:
        try:
            return _run(*_split(arguments))
        finally:
            sys.stdout.flush()  # here, where a reader that is gone can be handled
    except KeyboardInterrupt:
        print("lbfwd: interrupted", file=sys.stderr)
    except BrokenPipeError:
        # What is still buffered would be written at exit, and fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def _run(verb: str, arguments: Sequence[str]) -> int:
    module = importlib.import_module(f"lbfwd.cli.{verb}")
    parser = argparse.ArgumentParser(prog=f"lbfwd {verb}", description=module.HELP)
    module.configure(parser)
    code: int = module.run(parser.parse_args(arguments))
    return code


def _split(arguments: Sequence[str] | None) -> tuple[str, list[str]]:
    parser = argparse.ArgumentParser(
        prog="lbfwd",
        description="A layer-4 load balancer.",
        epilog=_verbs_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"lbfwd {__version__}")
    parser.add_argument("verb", metavar="VERB", choices=VERBS, help="one of the verbs below")
    parser.add_argument("rest", metavar="…", nargs=argparse.REMAINDER, help="lbfwd VERB --help")
    chosen = parser.parse_args(arguments)
    return chosen.verb, chosen.rest


def _verbs_help() -> str:
    lines = [f"  {verb:<8} {text}" for verb, text in VERBS.items()]
    return "\n".join(["verbs:", *lines, "", _EXIT_CODES])


if __name__ == "__main__":
    sys.exit(main())
