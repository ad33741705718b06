"""Which number the kernel has for each member of a fanout group, while members come and go.

A fanout program yields a number, which the kernel takes modulo the members that there are.
Kernel: net/packet/af_packet.c, __fanout_link, __fanout_unlink, packet_rcv_fanout, packet_notifier:

- who joins gets the next number;
- when one leaves, the last member gets its number;
- an interface that goes down takes all out; when it comes up they are numbered in the order in
  which their sockets were created. So a flap undoes what leaving has done.
"""

import fcntl
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Self

from lbfwd.net import bpf
from lbfwd.net.filter import DROP_ALL

_ETHERTYPE = 0x88B5  # IEEE 802, local experiments: nothing is received by it
_SIOCGIFFLAGS = 0x8913
_IFF_UP = 0x1
_IFREQ = struct.Struct("16sH22x")


def without(order: Sequence[int], member: int) -> tuple[int, ...]:
    """Return the members in the order of their numbers when one has left."""
    *others, last = order
    return tuple(last if other == member else other for other in others)


def numbers(
    wanted: Sequence[int], order: Sequence[int], after: Sequence[int] | None = None
) -> tuple[int, ...]:
    """Return what the program has to yield for each of ``wanted``, members who are in ``order``.

    ``after``: what the order becomes when one leaves; the numbers are right before and after. With
    m members afterwards, p before and q after: x = (m + 1) q - m p is p modulo m + 1, q modulo m.
    """
    if after is None:
        return tuple(order.index(member) for member in wanted)
    m = len(after)
    pairs = ((order.index(member), after.index(member)) for member in wanted)
    return tuple(((m + 1) * q - m * p) % (m * (m + 1)) for p, q in pairs)


class Members:
    """The members of one interface's group, by rank: the order in which they were created.

    A socket of its own on the interface tells whether that was down: its error is set then.
    """

    def __init__(self, interface: str, order: Sequence[int]) -> None:
        """``order``: by number, as it was before this call. Raises OSError."""
        self._interface = interface
        self._order = tuple(order)
        self._witness = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        try:
            bpf.attach(self._witness, DROP_ALL)
            self._witness.bind((interface, _ETHERTYPE))
        except OSError as error:
            self._witness.close()
            raise OSError(error.errno, f"watch {interface}: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Watch the interface no longer."""
        self._witness.close()

    @property
    def order(self) -> tuple[int, ...]:
        """The members by number, as of the last look."""
        return self._order

    def look(self) -> bool:
        """Take note of a flap since the last look; returns whether there was none, and it is up."""
        is_up = self._is_up()
        if is_up and not self._witness.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            return True
        self._order = tuple(sorted(self._order))
        return False

    def join(self, count: int) -> None:
        """Take note of new members, created in the order in which they joined."""
        first = max(self._order) + 1
        self._order += tuple(range(first, first + count))

    def leave(self, member: int, close: Callable[[], None], whatever: bool = False) -> bool:
        """Have a member leave by ``close``; blocks.

        Returns False, and does nothing, when the order was not what it was taken for, or the
        interface is down; with ``whatever`` it leaves all the same. What comes down and up again
        between the look and the close is not noticed: that is a few microseconds.
        """
        if not self.look() and not whatever:
            return False
        close()
        self._order = without(self._order, member)
        self.look()
        return True

    def renumber(self) -> None:
        """Call the first of those that are left 0 again."""
        first = min(self._order)
        self._order = tuple(member - first for member in self._order)

    def _is_up(self) -> bool:
        request = _IFREQ.pack(self._interface.encode(), 0)
        try:
            answer = fcntl.ioctl(self._witness, _SIOCGIFFLAGS, request)
        except OSError:  # it is gone
            return False
        return bool(_IFREQ.unpack(answer)[1] & _IFF_UP)
