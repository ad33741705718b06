"""nftables: GRE from the named nodes only, and inside it packets to the VIPs only.

This is filtering by source address, not authentication (docs/backend.md). The input hook runs
before both ways of decapsulation: the kernel gives a packet to GRE devices and to raw sockets only
after it (ip_local_deliver_finish, ip6_input_finish).
"""

from collections.abc import Iterable

import structlog

from lbfwd.backend.request import BackendError, IPAddress
from lbfwd.net import nft

TABLE = "inet lbfwd_backend"

log = structlog.get_logger()


def ruleset(nodes: Iterable[IPAddress], vips: Iterable[IPAddress], devices: Iterable[str]) -> str:
    """Return the nft(8) script that makes our table, in the place of one left over."""
    nodes, vips = tuple(nodes), tuple(vips)
    return f"""\
table {TABLE} {{}}
delete table {TABLE}
table {TABLE} {{
{_address_set("node4", 4, nodes)}
{_address_set("node6", 6, nodes)}
{_address_set("vip4", 4, vips)}
{_address_set("vip6", 6, vips)}
\tset tunnel {{ type ifname; {_elements([f'"{name}"' for name in devices])} }}
\tchain input {{
\t\ttype filter hook input priority filter - 10; policy accept;
\t\tmeta l4proto 47 ip saddr @node4 counter accept comment "GRE from a node"
\t\tmeta l4proto 47 ip6 saddr @node6 counter accept comment "GRE from a node"
\t\tmeta l4proto 47 counter drop comment "GRE from a stranger"
\t}}
\tchain prerouting {{
\t\ttype filter hook prerouting priority raw; policy accept;
\t\tiifname @tunnel ip daddr @vip4 counter accept comment "to a VIP"
\t\tiifname @tunnel ip6 daddr @vip6 counter accept comment "to a VIP"
\t\tiifname @tunnel counter drop comment "from the tunnel, not to a VIP"
\t}}
}}
"""


def _address_set(name: str, version: int, addresses: Iterable[IPAddress]) -> str:
    elements = _elements([str(a) for a in addresses if a.version == version])
    return f"\tset {name} {{ type ipv{version}_addr; {elements} }}"


def _elements(values: list[str]) -> str:
    """Return the elements clause; nft(8) has none for an empty set."""
    return f"elements = {{ {', '.join(values)} }};" if values else ""


# ---- I/O


class Filter:
    """Our table: installs it, finds out that somebody flushed it, takes it away."""

    def __init__(self, script: str) -> None:
        """``script``: what ``ruleset`` returned."""
        self._script = script
        self._installed = ""

    def sync(self) -> None:
        """Install the table where it is missing or changed. Raises BackendError."""
        if self._installed and _listing() == self._installed:
            return
        if self._installed:
            log.warning("filter_restored", table=TABLE, reason="somebody changed or flushed it")
        _nft("-f", "-", script=self._script)
        self._installed = _listing()

    def remove(self) -> None:
        """Delete the table; one that is gone already is no error."""
        if self._installed and _listing():
            _nft("delete", "table", *TABLE.split())
        self._installed = ""


def _listing() -> str:
    """Return our table as nft lists it, without counters; empty: there is none."""
    try:
        return _nft("--stateless", "list", "table", *TABLE.split())
    except BackendError:
        return ""


def _nft(*arguments: str, script: str = "") -> str:
    """Run nft(8). Raises BackendError."""
    try:
        return nft.run(*arguments, script=script)
    except nft.NftError as error:
        raise BackendError(str(error)) from error
