"""The table of the configuration that says how VIPs get to the routers."""

from typing import Annotated, Literal

from pydantic import PlainValidator

from lbfwd.config.values import Table, whole

AnnounceWhen = Literal["when_healthy", "always", "never"]

MAX_TABLE = 2**31 - 1
# ip-route(8), and health/tunnel_device.py.
_TAKEN = {
    253: 'the kernel\'s "default"',
    254: 'the kernel\'s "main"',
    255: 'the kernel\'s "local"',
    7700: "lbfwd's own for probes",
}


def parse_announce_table(value: object) -> int:
    """Check the number of the routing table for VIPs; 0: none. Raises ValueError."""
    if type(value) is not int or not 0 <= value <= MAX_TABLE:
        raise ValueError(f"the number of a routing table, 1 to {MAX_TABLE}; 0: nothing announced")
    if use := _TAKEN.get(value):
        raise ValueError(f"table {value} is {use}; one is needed that nothing else looks into")
    return value


class Announce(Table):
    """``[announce]``: host routes for the VIPs, for a routing daemon to import.

    ``table``: the kernel's routing table that they stand in (ip-route(8)); 0: there are none.
    ``drain_s``: at the stop, how long traffic may take to move away once they are withdrawn.
    """

    table: Annotated[int, PlainValidator(parse_announce_table)] = 0
    drain_s: Annotated[int, whole(0, 600)] = 30
