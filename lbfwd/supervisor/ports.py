"""All rings of this node: which interfaces have them, under which index, opened and closed."""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from lbfwd.config import IPAddress
from lbfwd.net.fanout import fanout_program, succeeding_members
from lbfwd.net.links import Link
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


class Ports:
    """Owns the rings. Rings are opened before the old ones of the same interface are closed."""

    def __init__(self, settings: SettingsByCpu, fanout: str) -> None:
        """Open nothing yet. ``fanout``: how packets are spread over the slots."""
        self.receivers: list[Receiver] = []
        self.transmitters: list[Transmitter] = []
        self._settings = settings
        self._fanout = fanout
        self._steered: dict[Receiver, frozenset[int]] = {}
        self._admitted: dict[Receiver, frozenset[IPAddress]] = {}
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

    @property
    def shape(self) -> tuple[SettingsByCpu, str]:
        """How rings are to be made and packets to be spread; ``open`` makes those that differ."""
        return self._settings, self._fanout

    async def restore(self, settings: SettingsByCpu, fanout: str) -> None:
        """Go back to a shape; rings of the other one that have no packets yet are closed."""
        await self.close([new for _old, new in self.successions()])
        self.reshape(settings, fanout)

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
        await self._steer(old, alive, succeeding_members(len(self._settings), 0))
        await asyncio.sleep(2 * old.longest_retire_ms / 1000 + LATE_RETIRE_S)
        self.count()
        new.succeed(old)
        self.forget([old])

    async def replace(self, old: Receiver, new: Receiver, alive: Collection[int]) -> None:
        """Close rings that no worker has any more; their successors get their places in the group.

        Raises OSError.
        """
        slots = len(self._settings)
        try:
            for gone in range(slots):
                await self._steer(new, alive, succeeding_members(slots, gone))
                await in_thread(None, old.leave, slots - 1 - gone)
            await self._steer(new, alive, tuple(range(slots)))
            self._steered[new] = frozenset(alive)
        finally:
            await self.close([old])

    async def _steer(self, rx: Receiver, alive: Collection[int], members: Sequence[int]) -> None:
        program = fanout_program(self._fanout, tuple(self._settings), alive, members)
        await in_thread(None, rx.steer, program)

    def attachments(self) -> tuple[Attachment, ...]:
        """Return what the workers are to use.

        RX rings that are to succeed others come when those are empty: a flow's packets stay in
        order.
        """
        waiting = [new for _old, new in self.successions()]
        receivers = [rx for rx in self.receivers if rx not in waiting]
        rings: tuple[Receiver | Transmitter, ...] = (*receivers, *self.transmitters)
        return tuple(ring.attachment for ring in rings)

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
        program = fanout_program(self._fanout, tuple(self._settings), slots)
        for rx in self.receivers:
            if self._steered.get(rx) != slots:
                await in_thread(None, rx.steer, program)
                self._steered[rx] = slots

    async def admit(self, vips: Collection[IPAddress]) -> None:
        """Let packets to these VIPs in, on every interface. Raises OSError."""
        wanted = frozenset(vips)
        for rx in self.receivers:
            if self._admitted.get(rx) != wanted:
                before = rx.admits_all
                await in_thread(None, rx.admit, wanted)
                self._admitted[rx] = wanted
                if rx.admits_all and not before:
                    self._warn_of_admitting_all(rx, len(wanted))

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
