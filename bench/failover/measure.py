"""What clients notice of an event: a count around it."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from bench.failover.node import FleetNode
from bench.failover.site import Clients, Site

SETTLED_S = 1.0  # after the router's last change
RECOVERED_S = 4.0  # TCP sends again what was lost, each time after twice as long


@dataclass(frozen=True)
class Noticed:
    """Of one event. ``noticed_ms``: until the router sent nothing more to the node, or did again.

    ``stalled``: connections that still waited for an answer at the end (client.py).
    ``lost``: datagrams, by VIP. ``silent_ms``: the longest that a flow of datagrams had no answer;
    ``longest_ms``: the longest exchange on a connection.
    """

    connections: int
    broken: int
    stalled: int
    datagrams: int
    lost: dict[str, int]
    silent_ms: float
    longest_ms: float
    noticed_ms: float

    def plain(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)


def notice(
    site: Site,
    clients: Clients,
    event: Callable[[], object],
    hops: int,
    settle_s: float = SETTLED_S,
) -> Noticed:
    """Count what clients notice while ``event`` happens and the router comes to ``hops`` nodes.

    Raises LabError when it does not.
    """
    clients.count()
    begin = time.monotonic()
    event()
    site.until(hops)
    noticed_s = time.monotonic() - begin
    time.sleep(settle_s)
    count = clients.count()
    return Noticed(
        connections=count["connections"] + len(count["broken"]),
        broken=len(count["broken"]),
        stalled=count["stalled"],
        datagrams=count["sent"],
        lost=count["lost"],
        silent_ms=count["silent_ms"],
        longest_ms=count["longest_ms"],
        noticed_ms=1000 * noticed_s,
    )


def stop(site: Site, clients: Clients, node: FleetNode) -> Noticed:
    """Stop a node politely."""
    return notice(site, clients, node.stop, len(site.nodes) - 1)


def start(site: Site, clients: Clients, node: FleetNode) -> Noticed:
    """Start it again."""
    return notice(site, clients, node.start, len(site.nodes))


def kill(site: Site, clients: Clients, node: FleetNode) -> Noticed:
    """Let it die, with its link."""
    return notice(site, clients, node.kill, len(site.nodes) - 1, RECOVERED_S)


def revive(site: Site, clients: Clients, node: FleetNode) -> Noticed:
    """Boot it again."""

    def boot() -> None:
        node.forget()
        node.plug()
        node.start_routing()
        node.start()

    return notice(site, clients, boot, len(site.nodes))


EVENTS = {
    "node stopped": stop,
    "node started": start,
    "node killed, link down": kill,
    "node booted": revive,
}
