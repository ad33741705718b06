"""What clients notice when a node of a fleet stops, starts or dies: ``python -m bench.failover``.

Two nodes with lbfwd and BIRD behind a router (bench/failover/site.py), with and without BFD. In
each round, for each event: connections that broke, datagrams that got no answer, how long clients
were without, and how long it took the router to notice.
"""

import os
import sys

from bench.failover.daemons import Detection
from bench.failover.measure import EVENTS, Noticed
from bench.failover.site import Clients, running
from bench.result import options, save

CONNECTIONS, FLOWS, RATE = 300, 64, 640
DETECTIONS = (Detection(), Detection(bfd=False, hold_s=3))


def one_round(detection: Detection) -> dict[str, Noticed]:
    """Return what clients noticed of each event, on a fleet of its own."""
    with (
        running(detection=detection) as site,
        Clients(site.client, CONNECTIONS, FLOWS, RATE) as clients,
    ):
        clients.wait()
        return {name: event(site, clients, site.nodes[-1]) for name, event in EVENTS.items()}


def main() -> int:
    """Run and report."""
    chosen = options(__doc__, rounds=5).parse_args()
    if os.geteuid() != 0:
        sys.exit("needs root: it makes network namespaces")
    figures: dict[str, dict[str, list[dict[str, object]]]] = {}
    for number in range(chosen.rounds):
        for detection in DETECTIONS:
            for name, noticed in one_round(detection).items():
                figures.setdefault(str(detection), {}).setdefault(name, []).append(noticed.plain())
                print(f"round {number + 1}, {detection}: {name}: {noticed}", flush=True)
    save("failover", chosen, figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
