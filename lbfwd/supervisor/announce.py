"""Announces VIPs while this node serves them, and takes them back when it does not.

What is announced are host routes (net/announce.py). They are looked at after every pass of the
reconciler, and after every change of a backend's standing.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Set
from contextlib import asynccontextmanager
from dataclasses import dataclass

from lbfwd.config import Config, IPAddress
from lbfwd.forwarding import PoolState
from lbfwd.net.announce import AnnounceError, Enforced, VipRoute, enforce
from lbfwd.supervisor import log
from lbfwd.supervisor.announcement import STARTING, Claim, Presence, claims, due, serving, step
from lbfwd.supervisor.blocking import in_thread
from lbfwd.supervisor.peering import HEARD_S
from lbfwd.supervisor.peers import takes_part
from lbfwd.supervisor.reconcile import Reconciler
from lbfwd.supervisor.status import NOTHING_ANNOUNCED, VipStatus
from lbfwd.supervisor.workers import Crew

TICK_S = 0.5  # between looks at workers and hold-downs
QUIET_S = 2.0  # without a packet: routers have taken up that the VIPs are gone
COUNT_S = 0.25
STOPPING = "lbfwd stops"
NOT_CONFIGURED = "not configured any more"

Packets = Callable[[Set[IPAddress]], Awaitable[int]]
"""Counts the packets that came for VIPs and were forwarded."""


class Announcer:
    """Owns lbfwd's routes for VIPs."""

    def __init__(self, reconciler: Reconciler, crew: Crew) -> None:
        """Announce nothing yet; what a predecessor announced stays."""
        self._reconciler = reconciler
        self._crew = crew
        self._presences: Mapping[IPAddress, Presence] = {}
        self._routes: frozenset[VipRoute] = frozenset()
        self._failed: Mapping[VipRoute, str] = {}
        self._broken = ""
        self._known: _Known | None = None
        self._asked: _Asked | None = None
        self._wanted: frozenset[VipRoute] = frozenset()
        self._health = STARTING
        self._withheld: Mapping[IPAddress, str] = {}
        self._left = ""  # why everything was withdrawn for good
        self._lock = asyncio.Lock()
        self._log = log.get()

    def node_reason(self) -> str:
        """Return why this node serves no VIP, or will not for long; empty: it does."""
        return self._left or self._node_reason()

    def vips(self) -> tuple[VipStatus, ...]:
        """Return every VIP, whether it is announced, and why not."""
        return tuple(map(self._vip, self._presences))

    async def run(self) -> None:
        """Keep the routes as they should be, for ever."""
        looked = self._reconciler.looked
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await looked.wait()
            told = looked.is_set()
            looked.clear()
            if told or self._is_due():
                await self.keep()

    async def keep(self) -> None:
        """Make the routes what they should be now. What fails is logged, and tried again."""
        async with self._lock:
            claimed, now = await self._claims(), asyncio.get_running_loop().time()
            self._health = self._health.seen(self._node_reason(), now)
            table = 0 if self._left else self._reconciler.config.announce.table
            asked = _Asked(claimed, self._withheld, self._health.verdict(now), table)
            if not (self._asked and self._asked.is_like(asked)) or self._is_over(now):
                self._take_step(asked, now)
            await self._enforce(self._wanted)

    def _take_step(self, asked: "_Asked", now: float) -> None:
        held = {vip: claim for vip, claim in asked.claimed.items() if vip not in asked.withheld}
        self._presences = step(self._presences, held, asked.node_reason, now)
        present = [vip for vip, presence in self._presences.items() if presence.announced]
        self._wanted = frozenset(VipRoute(asked.table, vip) for vip in present if asked.table)
        self._asked = asked

    @asynccontextmanager
    async def changing(self, config: Config) -> AsyncIterator[None]:
        """Take up a configuration within: what it does not announce is withdrawn before.

        What it announces and was not announced is announced after it was taken up.
        """
        wanted = await in_thread(None, claims, config.services, frozenset())
        self._withheld = {
            vip: reason
            for vip in self._presences
            if (reason := _not_any_more(wanted.get(vip), config))
        }
        await self.keep()
        try:
            yield
        finally:
            self._withheld = {}
            await self.keep()

    async def discard(self) -> None:
        """Withdraw what a predecessor has left, whose workers do not forward any more."""
        async with self._lock:
            await self._enforce(frozenset(), always=True)

    async def withdraw(self) -> frozenset[IPAddress]:
        """Withdraw everything for good, a predecessor's routes too. Returns what was announced."""
        self._left = STOPPING
        async with self._lock:
            known = self._routes  # some of them may remain
            removed = await self._enforce(frozenset(), always=True)
        return frozenset(route.vip for route in known | removed)

    async def leave(self, packets: Packets, hurried: asyncio.Event) -> None:
        """Withdraw everything, and wait until no packets come any more, ``drain_s`` at most.

        Other nodes are given the time to hear that they must hand over no fragments any more.
        """
        gone, config = await self.withdraw(), self._reconciler.config
        clock = asyncio.get_running_loop().time
        heard_at = clock() + (HEARD_S if takes_part(config) else 0)
        if gone and config.announce.drain_s:
            await self._drain(gone, packets, hurried)
        await _pause(heard_at - clock(), hurried)

    async def _drain(self, gone: Set[IPAddress], packets: Packets, hurried: asyncio.Event) -> None:
        longest_s = self._reconciler.config.announce.drain_s
        self._log.info("draining", vips=len(gone), longest_s=longest_s)
        clock = asyncio.get_running_loop().time
        begin, first = clock(), await packets(gone)
        seen, moved_at = first, begin
        while clock() - moved_at < QUIET_S:
            if clock() - begin >= longest_s or hurried.is_set():
                self._log.warning(
                    "traffic_remains",
                    waited_s=round(clock() - begin, 1),
                    packets=seen - first,
                    last_packet_s=round(clock() - moved_at, 1),
                    reason="told again to stop" if hurried.is_set() else "drain_s is over",
                )
                return
            await _pause(COUNT_S, hurried)
            if (count := await packets(gone)) != seen:
                seen, moved_at = count, clock()
        self._log.info("traffic_moved", waited_s=round(clock() - begin, 1), packets=seen - first)

    async def _claims(self) -> Mapping[IPAddress, Claim]:
        """Return what is asked for, of VIPs that workers know and that let packets in."""
        state, config = self._reconciler.state, self._reconciler.config
        if state is None:
            return {}
        known, ahead = self._known, state.basis.config
        if known and known.pools is state.forwarding.pools and known.config is config:
            return known.claimed
        able = await in_thread(None, serving, state.forwarding.pools)
        if known and known.config is config and known.ahead is ahead and known.able == able:
            claimed = known.claimed
        else:
            claimed = await in_thread(None, _claimed, ahead, config, able)
        self._known = _Known(state.forwarding.pools, config, ahead, able, claimed)
        return claimed

    def _node_reason(self) -> str:
        """Return why this node can serve no VIP at the moment; empty: it can."""
        if not self._crew.running():
            return "no worker forwards"
        view, names = self._reconciler.view, self._reconciler.config.node.interfaces
        links = [view.links[name] for name in names if view.state_of(name) == "up"]
        if not any(link.carrier for link in links):
            return f"no interface receives: {', '.join(names)}"
        return ""

    def _is_due(self) -> bool:
        """Whether a hold-down is over, or the node's health is not what it was."""
        now = asyncio.get_running_loop().time()
        reason = self._node_reason()
        return bool(reason or self._health.reason) or self._is_over(now)

    def _is_over(self, now: float) -> bool:
        """Whether a hold-down is."""
        return any(at <= now for at in due(self._presences))

    async def _enforce(self, wanted: frozenset[VipRoute], *, always: bool = False) -> Set[VipRoute]:
        """Make the routes the wanted ones. Returns those that were removed."""
        if not (wanted or self._routes or self._failed or self._broken or always):
            return frozenset()
        try:
            done = await in_thread(None, enforce, wanted)
        except AnnounceError as error:
            if str(error) != self._broken:
                self._log.error("announce_failed", reason=str(error))
            self._broken = str(error)
            return frozenset()
        self._broken = ""
        self._note(wanted, done)
        return done.removed

    def _note(self, wanted: frozenset[VipRoute], done: Enforced) -> None:
        """Keep what the routes are now, and log what is new."""
        before, failed = self._routes, done.failed
        self._routes = (wanted - failed.keys()) | (before & failed.keys())
        for table, vip in sorted(self._routes - before, key=str):
            self._log.info("vip_announced", vip=str(vip), table=table)
        for table, vip in sorted((before | done.removed) - self._routes, key=str):
            self._note_withdrawn(vip, table)
        for table, vip in sorted(done.added & before, key=str):
            self._log.warning("vip_route_restored", vip=str(vip), table=table)
        for route, reason in failed.items():
            if self._failed.get(route) != reason:
                self._log.error("announce_failed", vip=str(route.vip), reason=reason)
        self._failed = failed

    def _note_withdrawn(self, vip: IPAddress, table: int) -> None:
        presence, config = self._presences.get(vip), self._reconciler.config
        moved = VipRoute(config.announce.table, vip) in self._routes
        reason = f"[announce] table = {config.announce.table} now" if moved else self._reason(vip)
        reason = reason or "left by a predecessor"
        if presence and presence.fell and not self._left:
            self._log.warning("vip_withdrawn", vip=str(vip), table=table, reason=reason)
        else:  # somebody has asked for it
            self._log.info("vip_withdrawn", vip=str(vip), table=table, reason=reason)

    def _reason(self, vip: IPAddress) -> str:
        if reason := self._left or self._withheld.get(vip):
            return reason
        if presence := self._presences.get(vip):
            return presence.reason or NOTHING_ANNOUNCED
        return ""

    def _vip(self, vip: IPAddress) -> VipStatus:
        table = self._reconciler.config.announce.table
        route = VipRoute(table, vip)
        announced = route in self._routes
        reason = self._failed.get(route) or self._broken or self._reason(vip)
        return VipStatus(vip=vip, announced=announced, reason="" if announced else reason)


async def _pause(seconds: float, hurried: asyncio.Event) -> None:
    """Wait, but not when somebody is in a hurry."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await hurried.wait()


@dataclass(frozen=True)
class _Known:
    """What VIPs ask for, and what that was found of: most changes leave all pools serving."""

    pools: tuple[PoolState, ...]
    config: Config
    ahead: Config
    able: Set[str]
    claimed: Mapping[IPAddress, Claim]


@dataclass(frozen=True)
class _Asked:
    """What decides of presences, besides time."""

    claimed: Mapping[IPAddress, Claim]
    withheld: Mapping[IPAddress, str]
    node_reason: str
    table: int

    def is_like(self, other: "_Asked") -> bool:
        """Tell whether nothing has changed."""
        return self.claimed is other.claimed and (
            (self.withheld, self.node_reason, self.table)
            == (other.withheld, other.node_reason, other.table)
        )


def _claimed(ahead: Config, config: Config, able: Set[str]) -> Mapping[IPAddress, Claim]:
    """Return what both the configuration in force and that of the state ask for.

    In a reload the state is ahead: workers know a VIP, but its packets do not come in yet.
    """
    asked = claims(config.services, able)
    if ahead is config:
        return asked
    found = claims(ahead.services, able)
    return {v: found[v] if asked[v].wanted else asked[v] for v in found if v in asked}


def _not_any_more(claim: Claim | None, config: Config) -> str:
    """Return why a configuration, once taken up, does not announce a VIP; empty: it does."""
    if claim is None:
        return NOT_CONFIGURED
    if not config.announce.table:
        return NOTHING_ANNOUNCED
    return "" if claim.wanted else claim.reason
