"""Rings by interface: one socket a worker slot, opened near the core that uses it.

The rings belong to the supervisor; workers borrow them (docs/architecture.md).
"""

import errno
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal, ParamSpec, Self, TypeVar

from lbfwd.config import IPAddress, WorkerSettings
from lbfwd.net.bpf import Program, ProgramTooLong, encode
from lbfwd.net.filter import ADMIT_ALL, DROP_ALL, NO_PEERS, Peers, vip_filter
from lbfwd.net.links import Link
from lbfwd.ring import Geometry, RxSocket, TxSocket, rx_geometry, tx_geometry
from lbfwd.supervisor.process import Attachment

P = ParamSpec("P")
T = TypeVar("T")

SettingsByCpu = Mapping[int, WorkerSettings]
"""What each worker has in force, in the order of the slots."""

Shape = tuple[tuple[object, ...], ...]
"""What decides how the rings of each slot are made."""


@dataclass
class RingTotals:
    """What the kernel counted at one socket since it was opened."""

    packets: int = 0
    drops: int = 0
    freezes: int = 0


def rx_shape(settings: SettingsByCpu) -> Shape:
    """Return what decides how RX rings are made."""
    return tuple(
        (cpu, own.ring, own.rx_ring_mib, own.rx_block_kib, own.rx_retire_ms)
        for cpu, own in settings.items()
    )


def tx_shape(settings: SettingsByCpu) -> Shape:
    """Return what decides how TX rings are made."""
    return tuple((cpu, own.tx_ring_frames, own.qdisc_bypass) for cpu, own in settings.items())


class Receiver:
    """The RX rings of one interface: members of a fanout group, one a slot."""

    def __init__(
        self,
        link: Link,
        sockets: Sequence[RxSocket],
        attachment: Attachment,
        group: int | None,
        shape: Shape,
    ) -> None:
        """Use ``open``."""
        self.link = link
        self.attachment = attachment
        self.group = group
        self.shape = shape
        self.totals = tuple(RingTotals() for _ in sockets)
        self.admits_all = False
        self._sockets = tuple(sockets)

    @classmethod
    def open(
        cls, link: Link, index: int, settings: SettingsByCpu, group: int | None = None
    ) -> Self:
        """Open, bind and join every member; all of them still drop everything. Blocks.

        ``group``: that of other rings, whose packets these are to take over; None: a new one.

        Members may have rings of different kinds: a group asks for one interface and one protocol
        only (net/packet/af_packet.c, fanout_add).

        Sockets are created and joined in slot order: the kernel numbers the members of a group in
        the order in which they join, and links them anew after a flap in that of their creation.
        """
        with ExitStack() as undo:
            sockets: list[RxSocket] = []
            for cpu, own in settings.items():
                geometry = _rx_geometry(own, link.mtu)
                opened = _on_core(cpu, RxSocket.open, link.name, link.ifindex, geometry)
                undo.callback(opened.close)
                sockets.append(opened)
                group = opened.join(group)
            undo.pop_all()
        return cls(link, sockets, _attachment("rx", index, sockets), group, rx_shape(settings))

    def steer(self, program: Program) -> None:
        """Set the group's program: which member gets a packet. Blocks."""
        self._sockets[0].set_fanout(encode(program))

    @property
    def longest_retire_ms(self) -> int:
        """After so long a block is handed over, however full it is."""
        return max(opened.geometry.retire_ms for opened in self._sockets)

    def succeed(self, other: "Receiver") -> None:
        """Go on counting where the rings left off whose packets these take over now."""
        for own, others in zip(self.totals, other.totals, strict=True):
            own.packets += others.packets
            own.drops += others.drops
            own.freezes += others.freezes

    def leave(self, slot: int) -> None:
        """Close the slot's member; it leaves the group when no worker has it any more."""
        self._sockets[slot].close()

    def admit(
        self, vips: Iterable[IPAddress], elsewhere: Collection[int], peers: Peers = NO_PEERS
    ) -> None:
        """Admit packets to these addresses only; all, where the kernel cannot hold the program.

        ``elsewhere``: VLANs (VIDs) that have rings of their own. ``peers``: as of ``vip_filter``.
        """
        try:
            self._filter(vip_filter(vips, elsewhere, peers))
            self.admits_all = False
        except ProgramTooLong:
            self._admit_all()
        except OSError as error:
            if error.errno != errno.ENOMEM:  # the program is larger than net.core.optmem_max
                raise
            self._admit_all()

    def shut(self) -> None:
        """Drop everything that comes from now on; what is in the rings stays there."""
        self._filter(DROP_ALL)

    def count(self) -> None:
        """Add what the kernel counted since the last call."""
        for total, opened in zip(self.totals, self._sockets, strict=True):
            new = opened.statistics()
            total.packets += new.packets
            total.drops += new.drops
            total.freezes += new.freezes

    def close(self) -> None:
        """Close every socket, from the last slot down: see ``net.members``."""
        for opened in reversed(self._sockets):
            opened.close()

    def _admit_all(self) -> None:
        self._filter(ADMIT_ALL)
        self.admits_all = True

    def _filter(self, program: Program) -> None:
        encoded = encode(program)
        for opened in self._sockets:
            opened.set_filter(encoded)


class Transmitter:
    """The TX rings of one interface."""

    def __init__(
        self, link: Link, sockets: Sequence[TxSocket], attachment: Attachment, shape: Shape
    ) -> None:
        """Use ``open``."""
        self.link = link
        self.attachment = attachment
        self.shape = shape
        self._sockets = tuple(sockets)

    @classmethod
    def open(cls, link: Link, index: int, settings: SettingsByCpu) -> Self:
        """Open and bind one ring a slot; a slot of the ring holds a frame of the link's MTU."""
        with ExitStack() as undo:
            sockets: list[TxSocket] = []
            for cpu, own in settings.items():
                geometry = tx_geometry(own.tx_ring_frames, link.mtu)
                opened = _on_core(
                    cpu, TxSocket.open, link.name, link.ifindex, geometry, own.qdisc_bypass
                )
                undo.callback(opened.close)
                sockets.append(opened)
            undo.pop_all()
        return cls(link, sockets, _attachment("tx", index, sockets), tx_shape(settings))

    def serves(self, link: Link, shape: Shape) -> bool:
        """Return whether these are the rings for a link, which may have changed since."""
        same = self.link.ifindex == link.ifindex and self.shape == shape
        return same and self.link.mtu >= link.mtu

    def close(self) -> None:
        """Close every socket."""
        for opened in self._sockets:
            opened.close()


def _rx_geometry(own: WorkerSettings, mtu: int) -> Geometry:
    return rx_geometry(own.ring, own.rx_ring_mib, own.rx_block_kib, own.rx_retire_ms, mtu)


def _attachment(
    kind: Literal["rx", "tx"], index: int, sockets: Sequence[RxSocket | TxSocket]
) -> Attachment:
    geometries = tuple(opened.geometry for opened in sockets)
    return Attachment(kind, index, geometries, tuple(opened.fd for opened in sockets))


def _on_core(cpu: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call while this thread runs on ``cpu``, so that the kernel takes the memory near it."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        return function(*args, **kwargs)
    finally:
        os.sched_setaffinity(0, before)
