"""What interfaces and their queues dropped after we handed frames over (rtnetlink(7), tc(8))."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pyroute2 import IPRoute

_ROOT = 0xFFFFFFFF  # TC_H_ROOT: the queueing discipline that counts for all below it


@dataclass(frozen=True)
class TxDrops:
    """Frames dropped since the interface exists: by the device, by its queueing discipline."""

    device: int = 0
    qdisc: int = 0


def read_tx_drops() -> dict[int, TxDrops]:
    """Return drops by interface index. Blocks; not in a thread that runs an event loop."""
    loop = asyncio.SelectorEventLoop()
    try:
        with IPRoute(use_event_loop=loop) as ipr:
            found = combine(ipr.get_links(), ipr.get_qdiscs())
        loop.run_until_complete(asyncio.sleep(0))  # lets the socket close before the loop does
        return found
    finally:
        loop.close()


def combine(links: Iterable[Any], qdiscs: Iterable[Any]) -> dict[int, TxDrops]:
    """Join RTM_NEWLINK and RTM_NEWQDISC messages (pyroute2's) by interface index."""
    queued = {
        message["index"]: message.get_attr("TCA_STATS")["drop"]
        for message in qdiscs
        if message["parent"] == _ROOT and message.get_attr("TCA_STATS")
    }
    return {
        message["index"]: TxDrops(
            device=message.get_attr("IFLA_STATS64")["tx_dropped"],
            qdisc=queued.get(message["index"], 0),
        )
        for message in links
        if message.get_attr("IFLA_STATS64")
    }
