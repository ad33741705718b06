"""Names of probes: a reserved range of source ports, and of identifiers of echo requests.

A mark is not visible at the TUN device, so the source port tells the pump which backend a packet is
for. Each probe takes the next name that no open socket holds, so that a name comes again as late as
possible: never does a probe meet the rest of an old connection.
"""

import errno
import os
import random
import socket
import weakref
from collections.abc import Iterator

from lbfwd.config import IPAddress

# Above the kernel's own choice (net.ipv4.ip_local_port_range ends at 60999 by default). Others may
# use these ports all the same: a name that cannot be bound is passed over.
FIRST, LAST = 61000, 65535


class Names:
    """Hands out names; a socket holds its name until it is closed."""

    def __init__(self, first: int = FIRST, last: int = LAST) -> None:
        """Begin anywhere: a predecessor's connections may still be remembered somewhere."""
        self._first = first
        self._holders: list[weakref.ref[socket.socket] | None] = [None] * (last - first + 1)
        self._next = random.randrange(len(self._holders))  # noqa: S311 - spreads, hides nothing

    def bind(self, sock: socket.socket, source: IPAddress) -> int:
        """Bind to a free name as the port of ``source`` (a raw socket has none); returns the name.

        Raises OSError: every name is in use, or ``source`` is not this machine's any more.
        """
        for place in self._free():
            try:
                sock.bind((str(source), 0 if sock.type == socket.SOCK_RAW else self._first + place))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise OSError(
                        error.errno, f"source {source}: {os.strerror(error.errno or 0)}"
                    ) from error
                continue
            self._holders[place] = weakref.ref(sock)
            return self._first + place
        last = self._first + len(self._holders) - 1
        raise OSError(
            errno.EADDRINUSE, f"all source ports of probes are in use: {self._first} to {last}"
        )

    def _free(self) -> Iterator[int]:
        for _ in self._holders:
            place, self._next = self._next, (self._next + 1) % len(self._holders)
            holder = self._holders[place]
            held = holder() if holder else None
            if held is None or held.fileno() < 0:
                yield place
