"""Answers datagrams to the VIPs with themselves: ``python -m bench.failover.echo``."""

import asyncio
import socket
from typing import cast

from bench.failover.text import ECHO, VIPS

_SO_RCVBUFFORCE = 33  # asm-generic/socket.h
ROOM_BYTES = 8 << 20


def make_room(transport: asyncio.BaseTransport) -> None:
    """Let a socket hold what comes while its process has no processor."""
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, ROOM_BYTES)


class Echo(asyncio.DatagramProtocol):
    """Sends back what comes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the socket."""
        self._transport = cast("asyncio.DatagramTransport", transport)
        make_room(transport)

    def datagram_received(self, data: bytes, address: tuple[object, ...]) -> None:
        """Answer."""
        self._transport.sendto(data, address)


async def main() -> None:
    """Serve for ever."""
    loop = asyncio.get_running_loop()
    for vip in VIPS:  # not the wildcard address: answers must come from the VIP
        await loop.create_datagram_endpoint(Echo, local_addr=(vip, ECHO))
    print("echo_ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
