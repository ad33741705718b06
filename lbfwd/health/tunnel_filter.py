"""nftables sees to it that nothing of a probe leaves unwrapped, and reaches some other backend.

Answers that come after their probe has ended find nobody who holds the port, so the kernel answers
TCP with a reset and UDP with an ICMP error, both without the probe's mark. A chain of type route
(nft(8)) marks the resets, so that each ends the connection where it is; the errors are dropped. And
a marked packet to a VIP that is about to leave by another interface than the tunnel's is dropped,
whatever somebody's routing is. Every function blocks.
"""

from collections.abc import Collection

from lbfwd.config import IPAddress
from lbfwd.health.tunnel_device import DEVICE, MARK
from lbfwd.health.tunnel_error import TunnelError
from lbfwd.health.tunnel_names import FIRST, LAST
from lbfwd.net import nft

TABLE = "inet lbfwd_probe"

_EMPTY = f"table {TABLE} {{}}\ndelete table {TABLE}\n"


def ruleset(vips: Collection[IPAddress]) -> str:
    """Return the nft(8) script that makes the table, in the place of one that is there."""
    reset = f"tcp sport {FIRST}-{LAST} tcp flags & rst == rst meta mark set {MARK:#x}"
    astray = f'meta mark {MARK:#x} oifname != "{DEVICE}"'
    return f"""{_EMPTY}table {TABLE} {{
{_address_set(4, vips)}
{_address_set(6, vips)}
chain output {{
type route hook output priority mangle; policy accept;
meta mark {MARK:#x} accept
ip daddr @vip4 {reset}
ip6 daddr @vip6 {reset}
ip daddr @vip4 icmp type destination-unreachable drop
ip6 daddr @vip6 icmpv6 type destination-unreachable drop
}}
chain postrouting {{
type filter hook postrouting priority 0; policy accept;
ip daddr @vip4 {astray} drop
ip6 daddr @vip6 {astray} drop
}}
}}
"""


def _address_set(version: int, vips: Collection[IPAddress]) -> str:
    members = ", ".join(str(vip) for vip in sorted(vips, key=int) if vip.version == version)
    elements = f"elements = {{ {members} }};" if members else ""  # nft(8) has none for an empty set
    return f"set vip{version} {{ type ipv{version}_addr; {elements} }}"


def listing() -> str:
    """Return the table as nft lists it; empty: there is none."""
    try:
        return _nft("--stateless", "list", "table", *TABLE.split())
    except TunnelError:
        return ""


def install(vips: Collection[IPAddress]) -> str:
    """Install or replace the table; returns its listing. Raises TunnelError."""
    _nft("-f", "-", script=ruleset(vips))
    return listing()


def remove() -> None:
    """Remove the table; fine where there is none. Raises TunnelError."""
    _nft("-f", "-", script=_EMPTY)


def _nft(*arguments: str, script: str = "") -> str:
    try:
        return nft.run(*arguments, script=script)
    except nft.NftError as error:
        raise TunnelError(f"probe tunnel: {error}") from error
