"""The parts of a backend that others may undo: each brings its share about, again and again.

``sync`` looks at the kernel and changes what is not as wanted; ``remove`` takes back exactly what
``sync`` did. Both may be called at any time.
"""

from collections.abc import Iterable

import structlog
from pyroute2.netlink.exceptions import NetlinkError

from lbfwd.backend import routes
from lbfwd.backend.kernel import Kernel
from lbfwd.backend.plan import Plan, advertised_mss, tunnel_mtu
from lbfwd.backend.request import IPAddress
from lbfwd.backend.routes import Route, UnknownRouteError

log = structlog.get_logger()


class Vips:
    """The VIPs on lo, but for those that were there before."""

    def __init__(self, kernel: Kernel, vips: Iterable[IPAddress]) -> None:
        """``vips``: those to add."""
        self._kernel = kernel
        self._vips = tuple(vips)
        self._added: set[IPAddress] = set()

    def sync(self) -> None:
        """Add the VIPs that are missing. Raises BackendError."""
        present = {a.address for a in self._kernel.addresses()}
        for vip in self._vips:
            if vip not in present:
                if vip in self._added:
                    log.warning("vip_restored", vip=str(vip), reason="somebody removed it")
                self._added.add(vip)  # before: what fails may have happened nevertheless
                self._kernel.add_vip(vip)

    def remove(self) -> None:
        """Take them off again."""
        for vip in self._added:
            self._kernel.remove_vip(vip)
        self._added.clear()


class ReplyRoutes:
    """A rule a VIP and a table with the MSS that clients must keep to."""

    def __init__(self, kernel: Kernel, plan: Plan) -> None:
        """Nothing is routed yet."""
        self._kernel = kernel
        self._plan = plan
        self._underlays = dict(plan.underlays)
        self._complaints: set[str] = set()
        self._touched = False

    def sync(self) -> None:
        """Follow the main table, the MTUs and the rules. Raises BackendError."""
        self._touched = True
        mtu = self._mtu()
        complaints: set[str] = set()
        for family in self._plan.request.vip_families():
            complaints |= self._sync_family(family, advertised_mss(mtu, family))
        for complaint in sorted(complaints - self._complaints):
            log.warning("reply_route_skipped", route=complaint)
        self._complaints = complaints
        for vip in self._plan.request.vips:
            if not self._kernel.has_rule(vip, self._plan.table):
                self._kernel.add_rule(vip, self._plan.table)

    def remove(self) -> None:
        """Take rules and routes back."""
        if not self._touched:
            return
        for vip in self._plan.request.vips:
            self._kernel.remove_rule(vip, self._plan.table)
        for family in self._plan.request.vip_families():
            for route in self._kernel.reply_routes(family, self._plan.table):
                self._kernel.remove_route(route, self._plan.table)

    def _mtu(self) -> int:
        """Return the tunnel MTU; a node without a route for now keeps its last one."""
        for node in self._plan.request.nodes:
            underlay = self._kernel.underlay(node)
            if not underlay.problem:
                self._underlays[node] = underlay
        return tunnel_mtu(self._plan.request, self._underlays)

    def _sync_family(self, family: int, mss: int) -> set[str]:
        """Make our table what it should be. Returns what could not be copied, and why."""
        complaints: set[str] = set()
        wanted = routes.for_replies(self._main(family, complaints), mss)
        present = self._kernel.reply_routes(family, self._plan.table)
        for route in present:
            if route.key() not in wanted:
                self._kernel.remove_route(route, self._plan.table)
        for route in sorted(set(wanted.values()) - set(present), key=_has_gateway):
            try:
                self._kernel.put_route(route, self._plan.table)
            except NetlinkError as error:
                complaints.add(f"{route}: {error.args[1]}")
        return complaints

    def _main(self, family: int, complaints: set[str]) -> list[Route]:
        found = []
        for message in filter(routes.copies, self._kernel.main_routes(family)):
            try:
                found.append(routes.parse(message))
            except UnknownRouteError as error:
                complaints.add(str(error))
        return found


def _has_gateway(route: Route) -> bool:
    """Order routes so that a gateway's own link is there before it."""
    return any(hop.gateway or hop.via for hop in route.hops)
