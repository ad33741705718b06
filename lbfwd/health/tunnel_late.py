"""Answers that come after their probe has ended, and what this node's kernel says to them.

Nobody holds the port any more, so the kernel answers TCP with a reset and UDP with an ICMP error,
both without the probe's mark: they would go to the VIP unwrapped, and so to some other backend. An
nftables chain of type route (nft(8)) marks the resets, so that each ends the connection where it
is; the errors are dropped. Every function blocks.
"""

import subprocess
from collections.abc import Collection

from lbfwd.config import IPAddress
from lbfwd.health.tunnel_device import MARK
from lbfwd.health.tunnel_error import TunnelError
from lbfwd.health.tunnel_names import FIRST, LAST

TABLE = "inet lbfwd_probe"
TIMEOUT_S = 30

_EMPTY = f"table {TABLE} {{}}\ndelete table {TABLE}\n"


def ruleset(vips: Collection[IPAddress]) -> str:
    """Return the nft(8) script that makes the table, in the place of one that is there."""
    reset = f"tcp sport {FIRST}-{LAST} tcp flags & rst == rst meta mark set {MARK:#x}"
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
        done = subprocess.run(
            ["nft", *arguments],
            input=script,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
            start_new_session=True,  # a terminal's second Ctrl-C must not end the clean-up
        )
    except FileNotFoundError as error:
        raise TunnelError("probe tunnel: no nft command; install the package nftables") from error
    except subprocess.TimeoutExpired as error:
        raise TunnelError(f"probe tunnel: nft: no answer within {TIMEOUT_S} s") from error
    if done.returncode != 0:
        raise TunnelError(f"probe tunnel: nft {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout
