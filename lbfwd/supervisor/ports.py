"""All rings of this node: which interfaces have them, under which index, opened and closed."""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from lbfwd.config import IPAddress
from lbfwd.net.fanout import fanout_program
from lbfwd.net.filter import NO_PEERS, Peers
from lbfwd.net.links import Link
from lbfwd.net.members import Members, numbers, without
from lbfwd.ring import MAX_RX, MAX_TX
from lbfwd.supervisor import log
from lbfwd.supervisor.blocking import in_thread
from lbfwd.supervisor.errors import describe
from lbfwd.supervisor.process import Attachment
from lbfwd.supervisor.rings import (
    Receiver,
    SettingsByCpu,
    Transmitter,
    rx_shape,
    tx_shape,
)

RingSet = TypeVar("RingSet", Receiver, Transmitter)

# A block's timer may be late by two jiffies on kernels before 6.18.
LATE_RETIRE_S = 0.02
# How long a hand-over waits for a link that flaps: while it is down no packet comes in.
CALM_S = 2.0
CALM_POLL_S = 0.01


@dataclass(frozen=True)
class Present:
    """How rings are to be made and packets to be spread, and the rings that there are."""

    settings: SettingsByCpu
    fanout: str
    rings: tuple[Receiver | Transmitter, ...]


class Ports:
    """Owns the rings. Rings are opened before the old ones of the same interface are closed."""

    def __init__(self, settings: SettingsByCpu, fanout: str) -> None:
        """Open nothing yet. ``fanout``: how packets are spread over the slots."""
        self.receivers: list[Receiver] = []
        self.transmitters: list[Transmitter] = []
        self._settings = settings
        self._fanout = fanout
        self._steered: dict[Receiver, tuple[frozenset[int], tuple[int, ...]]] = {}
        self._members: dict[Receiver, Members] = {}  # where they are not numbered in slot order
        self._admitted: dict[Receiver, tuple[object, ...]] = {}
        self._log = log.get()

    async def open(self, receive: Iterable[Link], send: Iterable[Link]) -> tuple[str, ...]:
        """Open the rings that are lacking; returns what failed, one text an interface.

        A link that is down gets its RX rings when it comes up: kernels before 6.13 refuse to let
        its sockets join a fanout group.
        """
        failed: list[str] = []
        for link in receive:
            present = [rx for rx in self.receivers if rx.link.ifindex == link.ifindex]
            if link.up and not any(rx.shape == rx_shape(self._settings) for rx in present):
                opener = partial(Receiver.open, group=present[0].group if present else None)
                failed += await self._open(link, self.receivers, MAX_RX, opener)
        for link in send:
            if not any(tx.serves(link, tx_shape(self._settings)) for tx in self.transmitters):
                failed += await self._open(link, self.transmitters, MAX_TX, Transmitter.open)
        return tuple(failed)

    def present(self) -> Present:
        """Return what there is, to go back to."""
        return Present(self._settings, self._fanout, (*self.receivers, *self.transmitters))

    def go_back(self, before: Present) -> list[Receiver | Transmitter]:
        """Have rings made as before again; returns those to be closed that were opened since.

        They are forgotten: no generation to come refers to them. One that has already taken the
        place of another stays, and is succeeded in its turn.
        """
        self.reshape(before.settings, before.fanout)
        now: tuple[Receiver | Transmitter, ...] = (*self.receivers, *self.transmitters)
        gone = {(type(ring), ring.link.ifindex) for ring in before.rings if ring not in now}
        opened = [
            ring
            for ring in now
            if ring not in before.rings and (type(ring), ring.link.ifindex) not in gone
        ]
        self.forget(opened)
        return opened

    def reshape(self, settings: SettingsByCpu, fanout: str) -> None:
        """Have the next passes make the rings anew where they differ, and spread packets so."""
        if fanout != self._fanout:
            self._steered.clear()
        self._settings, self._fanout = settings, fanout

    def successions(self) -> list[tuple[Receiver, Receiver]]:
        """Return RX rings of another shape than is wanted, each with those made in their place."""
        wanted = rx_shape(self._settings)
        new = {rx.link.ifindex: rx for rx in self.receivers if rx.shape == wanted}
        return [
            (rx, new[rx.link.ifindex])
            for rx in self.receivers
            if rx.shape != wanted and rx.link.ifindex in new
        ]

    async def redirect(self, old: Receiver, new: Receiver, alive: Collection[int]) -> None:
        """Lead packets from rings to their successors. Raises OSError.

        When it returns nothing comes into the old ones any more, and the workers can have all that
        is in them: a program that was replaced is out of use (synchronize_net in the kernel's
        fanout_set_data), and the last block's timer has fired (it looks at a block twice).
        """
        slots = len(self._settings)
        if old not in self._members:
            self._members[old] = await in_thread(None, Members, old.link.name, range(slots))
        await self._steer(old, alive, range(slots, 2 * slots))
        self._members[new] = self._members.pop(old)
        self._members[new].join(slots)
        await asyncio.sleep(2 * old.longest_retire_ms / 1000 + LATE_RETIRE_S)
        self.count()
        new.succeed(old)
        self.forget([old])

    async def replace(self, old: Receiver, new: Receiver, alive: Collection[int]) -> None:
        """Close rings that no worker has any more; their successors get their places in the group.

        Raises OSError.
        """
        slots = len(self._settings)
        members = self._members[new]
        try:
            while len(members.order) > slots:
                await self._leave(members, old, new, alive)
        finally:
            for member in [m for m in reversed(members.order) if m < slots]:
                await in_thread(None, members.leave, member, partial(old.leave, member), True)
            members.renumber()
            await self.close([old])
        await self.steer(alive)

    async def _leave(
        self, members: Members, old: Receiver, new: Receiver, alive: Collection[int]
    ) -> None:
        """Have the last of the old members leave the group, its successor getting its packets.

        The program has to be right at the moment when it leaves; a flap before makes it wrong.
        """
        slots, clock = len(self._settings), asyncio.get_running_loop().time
        deadline = clock() + CALM_S
        while True:
            order = members.order
            leaving = next(member for member in reversed(order) if member < slots)
            after = without(order, leaving)
            await self._steer(new, alive, numbers(range(slots, 2 * slots), order, after))
            close, hurried = partial(old.leave, leaving), clock() > deadline
            if await in_thread(None, members.leave, leaving, close, hurried):
                return
            await asyncio.sleep(CALM_POLL_S)

    async def _steer(self, rx: Receiver, alive: Collection[int], members: Sequence[int]) -> None:
        program = fanout_program(self._fanout, tuple(self._settings), alive, members)
        await in_thread(None, rx.steer, program)

    def attachments(self) -> tuple[Attachment, ...]:
        """Return what the workers are to use.

        RX rings that are to succeed others come when those are empty: a flow's packets stay in
        order.
        """
        rings: tuple[Receiver | Transmitter, ...] = (*self._leading(), *self.transmitters)
        return tuple(ring.attachment for ring in rings)

    def _leading(self) -> list[Receiver]:
        """Return the RX rings that packets are led to: those that succeed no others, or not yet."""
        waiting = [new for _old, new in self.successions()]
        return [rx for rx in self.receivers if rx not in waiting]

    def tx_indexes(self) -> dict[int, int]:
        """Return the index of the newest TX ring by interface index."""
        return {tx.link.ifindex: tx.attachment.index for tx in self.transmitters}

    def refresh(self, links: Mapping[str, Link]) -> None:
        """Take note of the links' states.

        After an interface was down the kernel has linked its sockets anew: its programs count as
        not set.
        """
        for rx in self.receivers:
            link = links.get(rx.link.name)
            if link is None or link.ifindex != rx.link.ifindex:
                continue
            if link.up and not rx.link.up:
                self._steered.pop(rx, None)
                self._admitted.pop(rx, None)
            rx.link = link

    def distrust(self) -> None:
        """Count every program as not set: a flap may have been too short to be seen."""
        self._steered.clear()
        self._admitted.clear()

    async def steer(self, alive: Collection[int]) -> None:
        """Spread packets over these slots, on every interface. Raises OSError."""
        slots = frozenset(alive)
        for rx in self._leading():
            members = await self._numbers(rx)
            if self._steered.get(rx) != (slots, members):
                await self._steer(rx, slots, members)
                self._steered[rx] = slots, members

    async def _numbers(self, rx: Receiver) -> tuple[int, ...]:
        """Return the number of each slot's member: the slot, but for some time after a flap."""
        slots = tuple(range(len(self._settings)))
        members = self._members.get(rx)
        if members is None:
            return slots
        members.look()
        found = numbers(slots, members.order)
        if found == slots:
            await in_thread(None, self._members.pop(rx).close)
        return found

    async def admit(self, vips: Collection[IPAddress], peers: Peers = NO_PEERS) -> None:
        """Let packets to these VIPs in, and what nodes hand over. Raises OSError."""
        admitted = frozenset(vips)
        for rx in self.receivers:
            wanted = admitted, self._vlans_above(rx.link), peers
            if self._admitted.get(rx) != wanted:
                before = rx.admits_all
                await in_thread(None, rx.admit, *wanted)
                self._admitted[rx] = wanted
                if rx.admits_all and not before:
                    self._warn_of_admitting_all(rx, len(admitted))

    def _vlans_above(self, link: Link) -> frozenset[int]:
        """Return the VLANs on an interface that have rings of their own."""
        return frozenset(
            rx.link.vlan for rx in self.receivers if rx.link.vlan and rx.link.below == link.ifindex
        )

    def shut(self) -> None:
        """Drop everything that comes, on every interface."""
        for rx in self.receivers:
            rx.shut()
        self._admitted.clear()

    def forget(self, rings: Sequence[Receiver | Transmitter]) -> None:
        """Take rings out of what the workers are to use; their owner is now the caller."""
        self.receivers = [rx for rx in self.receivers if rx not in rings]
        self.transmitters = [tx for tx in self.transmitters if tx not in rings]
        for ring in rings:
            if isinstance(ring, Receiver):
                self._steered.pop(ring, None)
                self._admitted.pop(ring, None)

    def count(self) -> None:
        """Collect the kernel's statistics; 32-bit counters must be read before they wrap."""
        for rx in self.receivers:
            rx.count()

    async def close(self, rings: Sequence[Receiver | Transmitter]) -> None:
        """Close rings that no worker is to use any more; the kernel takes its time."""
        self.forget(rings)
        for ring in rings:
            if isinstance(ring, Receiver) and (members := self._members.pop(ring, None)):
                await in_thread(None, members.close)
            await in_thread(None, ring.close)
            self._log_ring("ring_closed", ring)

    async def close_all(self) -> None:
        """Close every ring."""
        await self.close([*self.receivers, *self.transmitters])

    async def _open(
        self,
        link: Link,
        rings: list[RingSet],
        most: int,
        opener: Callable[[Link, int, SettingsByCpu], RingSet],
    ) -> list[str]:
        taken = {ring.attachment.index for ring in rings}
        index = next((number for number in range(most) if number not in taken), None)
        if index is None:
            return [f"{link.name}: rings on more than {most} interfaces"]
        try:
            ring = await in_thread(None, opener, link, index, self._settings)
        except OSError as error:
            return [describe(error)]
        rings.append(ring)
        self._log_ring("ring_opened", ring)
        return []

    def _log_ring(self, event: str, ring: Receiver | Transmitter) -> None:
        link, attached = ring.link, ring.attachment
        self._log.info(
            event,
            interface=link.name,
            ifindex=link.ifindex,
            ring=attached.kind,
            index=attached.index,
        )

    def _warn_of_admitting_all(self, rx: Receiver, vips: int) -> None:
        self._log.warning(
            "filter_admits_all",
            interface=rx.link.name,
            vips=vips,
            reason="the kernel cannot hold a filter for so many VIPs (net.core.optmem_max)",
            consequence="workers look at every packet of the interface",
        )
