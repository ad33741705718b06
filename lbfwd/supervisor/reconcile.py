"""Makes this node what configuration and network ask for, again and again.

A pass is ``prepare`` (look at the network, open rings, publish) and ``expose`` (close what is not
needed, guard, programs, filters). Packets of a new VIP come in only after workers know it; the
rings of an interface are closed only after no worker refers to them.
"""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from functools import partial

from pyroute2.netlink.exceptions import NetlinkError

from lbfwd.config import Config, IPAddress
from lbfwd.fleet.merge import Merged
from lbfwd.health.standing import BackendKey
from lbfwd.net import guard
from lbfwd.net.links import Link
from lbfwd.net.resolve import Net, Resolution
from lbfwd.supervisor import log
from lbfwd.supervisor.alarm import Alarm
from lbfwd.supervisor.blocking import in_thread, uninterrupted
from lbfwd.supervisor.errors import SupervisorError, describe
from lbfwd.supervisor.handover import hand_over
from lbfwd.supervisor.peering import Peering
from lbfwd.supervisor.peers import derive_peers, doors, partners
from lbfwd.supervisor.ports import Ports, Present
from lbfwd.supervisor.registry import Registry
from lbfwd.supervisor.rings import Receiver, Transmitter
from lbfwd.supervisor.state import State, derive, unreachable
from lbfwd.supervisor.watch import Watch
from lbfwd.supervisor.workers import Crew
from lbfwd.tables import Tables, TablesError

PERIOD_S = 5.0
RETRY_S = 1.0
ACKNOWLEDGE_S = 2.0
ACKNOWLEDGE_POLL_S = 0.001
UNGUARD_TRIES = 5  # an impatient Ctrl-C reaches the whole process group, and kills nft
SETTLE_S = 1.0  # for the kernel to resolve neighbours that nobody asked for before
SETTLE_POLL_S = 0.05
_EVENTS = {
    "up": "interface_up",
    "down": "interface_down",
    "unsuitable": "interface_unsuitable",
    "gone": "interface_gone",
}


@dataclass(frozen=True)
class View:
    """What the network looks like, as of one moment."""

    links: Mapping[str, Link] = field(default_factory=dict)
    resolutions: Mapping[IPAddress, Resolution] = field(default_factory=dict)

    def has(self, link: Link) -> bool:
        """Whether this very interface is still there, not one that only has its name."""
        found = self.links.get(link.name)
        return found is not None and found.ifindex == link.ifindex

    def state_of(self, name: str) -> str:
        """Return ``up``, ``down``, ``unsuitable`` (not Ethernet) or ``gone``."""
        link = self.links.get(name)
        if link is None:
            return "gone"
        if not link.ethernet:
            return "unsuitable"
        return "up" if link.up else "down"

    def receiving(self, names: Sequence[str]) -> list[Link]:
        """Return the links of these names that can have rings."""
        return [self.links[n] for n in names if n in self.links and self.links[n].ethernet]

    def sending(self, names: Sequence[str]) -> list[Link]:
        """Return the links that packets may leave on: next hops', and the receiving ones."""
        hops = [hop.link for found in self.resolutions.values() for hop in found.hops]
        links = {link.ifindex: link for link in (*hops, *self.receiving(names))}
        return [links[ifindex] for ifindex in sorted(links)]


@dataclass(frozen=True)
class Parts:
    """What a pass works with, and the one thread each in which it is used."""

    net: Net
    net_thread: Executor
    tables: Tables
    tables_thread: Executor
    crew: Crew
    ports: Ports
    watch: Watch
    registry: Registry = field(default_factory=Registry)
    peering: Peering = field(default_factory=Peering)


class Reconciler:
    """Runs passes, one at a time, and keeps what the last one found for ``status``."""

    def __init__(self, config: Config, parts: Parts, alarm: Alarm) -> None:
        """Look at nothing yet."""
        self.base = config
        """What the operators say; ``config`` is that, and the backends that have registered."""
        self._parts = parts
        self._take_up(parts.registry.merge(config, config))
        self.view = View()
        self.state: State | None = None
        self.generation = 0
        self.looked = asyncio.Event()
        """Set after each pass, and whenever standings were published."""
        self._crew = parts.crew
        self._ports = parts.ports
        self._watch = parts.watch
        self._reach: tuple[Config, View, Mapping[int, int]] | None = None
        self._unreachable: Mapping[BackendKey, str] = {}
        self._lock = asyncio.Lock()
        self._alarm = alarm
        self._guarded: tuple[object, ...] | None = None
        self._guard_touched = False
        self._interfaces: dict[str, str] = {}
        self._failed: tuple[str, ...] = ()
        self._log = log.get()

    async def run(self) -> None:
        """Run passes for ever. What fails is logged and tried again."""
        clock = asyncio.get_running_loop().time
        due = clock() + PERIOD_S
        while True:
            await self._alarm.wait(RETRY_S if self._failed else due - clock())
            if clock() >= due:
                due = clock() + PERIOD_S
                self._ports.count()
                self._alarm.suspect()
            async with self._lock:
                self._note_failures(await self._attempt(self._pass()))
            self.looked.set()

    async def prepare(self, config: Config) -> None:
        """Open rings and publish, once backends have been asked whether they are well.

        Raises SupervisorError, OSError or TablesError.
        """
        await self._settle(config)
        await self._watch.prepare(config, self.config)
        if failed := await self._open(config):
            raise SupervisorError("; ".join(failed))
        await self._publish(config)

    async def expose(self, config: Config) -> None:
        """Take away what is not needed, and let packets in. Raises GuardError or OSError."""
        suspicious = self._alarm.take_suspicion()
        if suspicious:
            self._ports.distrust()
        await self._retire(config)
        await self._guard(config, verify=suspicious)
        await self._ports.steer(self._crew.alive())
        await self._ports.admit({s.vip for s in config.services}, doors(config))
        await hand_over(self._ports, self._crew)

    async def apply(self, base: Config) -> None:
        """Take up another configuration as a whole, or raise and go on with the present one."""
        async with self._lock:
            merged = await self._merged(base)
            config = merged.config
            before = self._ports.present()
            settings = config.settings_by_cpu
            try:
                await self._crew.renew(settings)
                self._ports.reshape(settings, config.workers.fanout)
                await self.prepare(config)
                await self.expose(config)
            except Exception:
                await self._go_back(before)
                raise
            self.base = base
            self._take_up(merged)
            await self._watch.settle(config, taken_up=True)

    async def revise(self) -> None:
        """Take up who has registered, and who has gone. What fails is tried again."""
        async with self._lock:
            merged, running = await self._merged(self.base), self.config
            config = merged.config if merged.config.pools != running.pools else running
            self._take_up(Merged(config, merged.refused))
            if config is not running:
                await self._attempt(self._settle(config))  # the first probe finds its way
                await self._watch.settle(config, taken_up=True)
                self._note_failures(await self._attempt(self._pass()))
        self.looked.set()

    async def _merged(self, base: Config) -> Merged:
        return await in_thread(None, self._parts.registry.merge, base, self.config)

    def _take_up(self, merged: Merged) -> None:
        self.config, self._parts.registry.refused = merged.config, merged.refused

    async def republish(self) -> None:
        """Publish what backends' standings have become, by what is known of the network.

        What fails is logged and tried again.
        """
        async with self._lock:
            failed = await self._attempt(self._publish(self.config))
            if failed:
                self._note_failures(failed)
                self._alarm.ring()
        self.looked.set()

    async def unguard(self) -> None:
        """Take the guard away, if we have put it there."""
        if not self._guard_touched:
            return
        reason = ""
        for _ in range(UNGUARD_TRIES):
            try:
                await guard.remove()
            except guard.GuardError as error:
                reason = str(error)
            else:
                return
        self._log.error("guard_remains", reason=reason)

    async def _go_back(self, before: Present) -> None:
        """Make all as it was before a change that failed half-way.

        What fails here, too, is logged, and tried again by the passes: the caller has the first
        error to tell. What was opened is closed before workers are started: both need descriptors.
        """
        opened = self._ports.go_back(before)
        settle = partial(self._watch.settle, self.config, taken_up=False)
        unsettled = await self._attempt(settle())
        failed = await self._attempt(self._publish_again())
        failed += await self._attempt(self._remove(opened))
        failed += await self._attempt(self.expose(self.config))
        failed += await self._attempt(self._crew.renew(before.settings))
        if unsettled:
            failed += await self._attempt(settle())
        self._note_failures(failed)
        self._alarm.ring(suspicious=True)

    async def _publish_again(self) -> None:
        await self._look(self.config)
        await self._publish(self.config)

    async def _pass(self) -> tuple[str, ...]:
        await self._look(self.config)
        failed = await self._open(self.config)
        await self._publish(self.config)
        await self.expose(self.config)
        # Whoever could not be given his settings back; last, for nothing else waits for that.
        return failed + await self._attempt(self._crew.renew(self.config.settings_by_cpu))

    async def _attempt(self, work: Awaitable[tuple[str, ...] | None]) -> tuple[str, ...]:
        """Return what failed. The data plane goes on without us: nothing is raised."""
        try:
            return await work or ()
        except (OSError, SupervisorError, TablesError, NetlinkError, guard.GuardError) as error:
            return (describe(error),)
        except Exception as error:
            if repr(error) not in self._failed:
                self._log.exception("reconcile_crashed")
            return (repr(error),)

    def _note_failures(self, failed: tuple[str, ...]) -> None:
        for reason in failed:
            if reason not in self._failed:
                self._log.error("reconcile_failed", reason=reason)
        if self._failed and not failed:
            self._log.info("reconcile_recovered")
        self._failed = failed

    async def _look(self, config: Config) -> None:
        net, thread = self._parts.net, self._parts.net_thread
        links = await in_thread(thread, net.links)
        found = await in_thread(thread, _resolve, net, config)
        self.view = View(links, found)
        await self._watch.look(config, found)
        self._ports.refresh(links)
        self._note_interfaces(config)

    async def _settle(self, config: Config) -> None:
        """Look, and give next hops of new backends the time to answer: shares move only once."""
        await self._look(config)
        known = {*partners(config).values()}  # nodes that are down answer nothing, and may stay so
        known |= self.state.basis.config.addresses if self.state else set()
        deadline = asyncio.get_running_loop().time() + SETTLE_S
        while any(to not in known and not r.hops for to, r in self.view.resolutions.items()):
            if asyncio.get_running_loop().time() > deadline:
                return
            await asyncio.sleep(SETTLE_POLL_S)
            await self._look(config)

    async def _open(self, config: Config) -> tuple[str, ...]:
        await self._remove([rx for rx in self._ports.receivers if not self.view.has(rx.link)])
        names = config.node.interfaces
        failed = await self._ports.open(self.view.receiving(names), self.view.sending(names))
        await self._crew.align(self._ports.attachments())
        return failed

    async def _publish(self, config: Config) -> None:
        thread, tables = self._parts.tables_thread, self._parts.tables
        tx = self._ports.tx_indexes()
        if not self._has_reach(config, tx):
            found = await in_thread(thread, unreachable, config, self.view.resolutions, tx)
            self._reach, self._unreachable = (config, self.view, tx), found
        await self._watch.judge(config, self._unreachable)
        standings, resolutions = self._watch.standings, self.view.resolutions
        peers = derive_peers(config, resolutions, tx, self._parts.peering.live)
        state = await in_thread(
            thread, derive, config, resolutions, tx, standings, self.state, peers
        )
        before = self.state
        if before is not None and before.forwarding == state.forwarding:
            state = replace(state, forwarding=before.forwarding)  # one object a generation
        else:
            self.generation = await in_thread(thread, tables.publish, state.forwarding)
            self._log.info("generation_published", generation=self.generation)
        self.state = state
        await self._acknowledged()

    def _has_reach(self, config: Config, tx: Mapping[int, int]) -> bool:
        """Whether it is known who is reachable. To compare would hold the event loop up."""
        known = self._reach
        return bool(known and known[0] is config and known[1] is self.view and known[2] == tx)

    async def _acknowledged(self) -> None:
        """Wait until every worker uses the new generation; a late one only delays reuse."""
        deadline = asyncio.get_running_loop().time() + ACKNOWLEDGE_S
        while not self._is_acknowledged():
            if asyncio.get_running_loop().time() > deadline:
                self._log.warning("acknowledgement_late", generation=self.generation)
                return
            await asyncio.sleep(ACKNOWLEDGE_POLL_S)

    def _is_acknowledged(self) -> bool:
        return self._parts.tables.acknowledged(self.generation, self._crew.running())

    async def _retire(self, config: Config) -> None:
        """Close the rings of interfaces that are gone or not configured any more."""
        if not self._is_acknowledged():
            return
        receive = {link.ifindex for link in self.view.receiving(config.node.interfaces)}
        in_use = set(self._ports.tx_indexes().values())
        surplus_rx = [rx for rx in self._ports.receivers if rx.link.ifindex not in receive]
        surplus_tx = [
            tx
            for tx in self._ports.transmitters
            if not self.view.has(tx.link) or tx.attachment.index not in in_use
        ]
        await self._remove([*surplus_rx, *surplus_tx])
        reclaim = self._parts.tables.reclaim
        await in_thread(self._parts.tables_thread, reclaim, self._crew.alive())

    async def _remove(self, rings: Sequence[Receiver | Transmitter]) -> None:
        if rings:
            for ring in rings:
                if isinstance(ring, Receiver):
                    ring.shut()
            self._ports.forget(rings)
            await self._crew.align(self._ports.attachments())
            await self._ports.close(rings)

    async def _guard(self, config: Config, verify: bool) -> None:
        """Keep the node's own stack away from packets to the VIPs."""
        links = self.view.receiving(config.node.interfaces)
        names = [link.name for link in links]
        vips, own = frozenset(service.vip for service in config.services), doors(config).own
        wanted = (tuple(link.ifindex for link in links), vips, own)
        if self._guarded == wanted:
            if not verify or not await uninterrupted(guard.missing(names, vips, own)):
                return
            self._log.warning("guard_missing", interfaces=names)
        self._guarded = None
        touched, self._guard_touched = self._guard_touched, True
        try:
            await uninterrupted(guard.install(names, vips, own))
        except guard.GuardError:
            self._guard_touched = touched
            raise
        self._guarded = wanted
        self._log.info("guard_installed", interfaces=names, vips=len(vips))

    def _note_interfaces(self, config: Config) -> None:
        states = {name: self.view.state_of(name) for name in config.node.interfaces}
        for name, state in states.items():
            if self._interfaces.get(name) != state:
                level = self._log.info if state == "up" else self._log.error
                level(_EVENTS[state], interface=name)
        self._interfaces = states


def _resolve(net: Net, config: Config) -> Mapping[IPAddress, Resolution]:
    return net.resolve(config.addresses.union(partners(config).values()), config.node.source)
