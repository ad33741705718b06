"""``python -m bench.pktgen INTERFACE --mac MAC --vip ADDRESS --port PORT``: send, ask, report."""

import json
import signal
import sys
from collections.abc import Sequence

from bench.machine import machine
from bench.pktgen import driver, node, report
from bench.pktgen.options import Options, parse
from bench.pktgen.plan import plan, senders
from bench.pktgen.proc import Files, RefusedError, interface

INTERRUPTED = 130  # 128 and the number of SIGINT, as a shell says it


def measure(files: Files, options: Options) -> report.Report:
    """Do one run. Raises RefusedError, NoStatusError or ValueError: what was wrong."""
    driver.look(files, options.cpus)
    made = senders(options, interface(options.interface))
    commands = plan(options, made)
    before = node.ask(options.status_command) if options.status_command else None
    sent = driver.run(files, commands, made, options.seconds)
    if before is None:
        return report.Report(options, made, sent, None)
    after = node.settled(options.status_command)
    return report.Report(options, made, sent, node.counted(before, after))


def main(arguments: Sequence[str] | None = None, files: Files | None = None) -> int:
    """Run and print. Returns the exit code."""
    options, as_json = parse(arguments)
    try:
        done = measure(files or Files(), options)
    except (RefusedError, node.NoStatusError, ValueError) as error:
        print(f"bench.pktgen: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench.pktgen: interrupted; pktgen is stopped, its devices removed", file=sys.stderr)
        return INTERRUPTED
    if as_json:
        print(json.dumps({"machine": machine(), **report.plain(done)}, indent=1))
    else:
        print(report.text(done))
    return 0


if __name__ == "__main__":
    for number in driver.ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, signal.default_int_handler)
    sys.exit(main())
