"""Check of the probes' tunnel, as far as the running node tells. Pure."""

from collections.abc import Iterator

from lbfwd.doctor.facts import NodeFacts
from lbfwd.doctor.finding import Finding, broken, ok, warn
from lbfwd.health.tunnel_device import TABLE
from lbfwd.supervisor.status import TunnelStatus


def tunnel(facts: NodeFacts) -> Iterator[Finding]:
    """Tell whether probes get through the tunnel, and large packets, too."""
    found = facts.status.tunnel if facts.status else None
    if found is None:
        return
    later = facts.later.tunnel if facts.later else None
    yield from list(_trouble(found, later or found)) or [
        ok("tunnel", f"{found.packets} packets of probes were sent")
    ]


def _trouble(now: TunnelStatus, later: TunnelStatus) -> Iterator[Finding]:
    if later.trouble:
        why = "no probe gets through: a backend that dies now is not noticed"
        fix = f"ip rule; ip route show table {TABLE}; nft list table inet lbfwd_probe"
        yield broken("tunnel", later.trouble, why, f"{fix}  # who changes them?")
    for hole in later.mtu_holes:
        why = "uploads of clients hang at this backend, while its small probes pass"
        yield warn("tunnel", hole.reason, why, hole.fix)
    for reason, count in later.dropped.items():
        if (grown := count - now.dropped.get(reason, 0)) > 0:
            what = f"{grown} packets of probes were not sent within a second: {reason}"
            why = "the probe they belong to ends with a timeout that is no backend's fault"
            yield warn("tunnel", what, why, "lbfwd status; tc -s qdisc; ip -s link")
