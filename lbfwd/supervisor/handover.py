"""Rings of another shape: made beside the old ones, which are closed when the last packet has left.

A ring's shape cannot be changed while it is used. The new sockets join the fanout group of the
old ones; at any moment its program leads a packet to exactly one of the two (net/fanout.py).
"""

from lbfwd.supervisor.ports import Ports
from lbfwd.supervisor.workers import Crew


async def hand_over(ports: Ports, crew: Crew) -> None:
    """Have RX rings that were made anew take their predecessors' packets. Raises OSError.

    Packets wait in the new rings, whose filters are open, until the workers have forwarded what is
    left in the old ones.
    """
    for old, new in ports.successions():
        await ports.redirect(old, new, crew.alive())
        await crew.align(ports.attachments())
        await ports.replace(old, new, crew.alive())
