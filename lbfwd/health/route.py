"""How a probe's packets get to one backend: by the node's own routes, or through its tunnel."""

import socket
from collections.abc import Collection
from typing import NamedTuple, Protocol

from lbfwd.config import IPAddress


class Tunnelled(NamedTuple):
    """A VIP as it is asked at one backend, through the tunnel.

    ``mtu_check_s``: how often the tunnel's MTU is tried, 0: never.
    """

    vip: IPAddress
    backend: IPAddress
    mtu_check_s: int = 0


class Route(Protocol):
    """Makes sockets whose packets go to one backend."""

    def bind(self, kind: socket.SocketKind) -> socket.socket:
        """Return an unconnected non-blocking socket, SOCK_STREAM or SOCK_DGRAM.

        Raises OSError, its ``strerror`` for people, when there is no way to the backend now.
        """


class NamedRoute(Route, Protocol):
    """A route whose packets bear a name: source port, or identifier of echo requests."""

    def bind_named(self, kind: socket.SocketKind) -> tuple[socket.socket, int]:
        """Return a socket as ``bind`` does, SOCK_RAW for ICMP, and its name."""


class TunnelRoutes(Protocol):
    """The tunnel, as the monitor uses it."""

    async def apply(self, wanted: Collection[Tunnelled]) -> None:
        """Serve these from now on, and no others; routes of those that stay stay good."""

    def route(self, vip: IPAddress, backend: IPAddress) -> NamedRoute:
        """Return the way to a VIP at one backend, for one that was applied."""


class Direct:
    """The node's own routes."""

    def __init__(self, target: IPAddress) -> None:
        """``target`` says the family."""
        self._family = socket.AF_INET if target.version == 4 else socket.AF_INET6

    def bind(self, kind: socket.SocketKind) -> socket.socket:
        """Return a socket that is bound to nothing. Raises OSError without descriptors."""
        return socket.socket(self._family, kind | socket.SOCK_NONBLOCK)
