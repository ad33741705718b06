"""The fleet's clients: ``python -m bench.failover.client CONNECTIONS FLOWS RATE``.

CONNECTIONS long-lived TCP connections to the web servers, half to each VIP, each with an exchange
every ``EXCHANGE_S``; and RATE numbered datagrams a second to the echo servers, over FLOWS sockets.
A line on stdin ends a count and begins the next; what was counted is printed, a line of JSON.
"""

import asyncio
import json
import struct
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import cast

from bench.failover.echo import make_room
from bench.failover.text import ECHO, HTTP, VIPS

EXCHANGE_S = 0.25
ANSWER_S = 30.0  # without an answer for so long a connection counts as broken
STALLED_S = 3.0  # an exchange that is not over after so long stands out, though nothing is broken
SETTLE_S = 3.0  # longest wait for answers to datagrams that are under way when a count ends
LOOK_S = 0.02
_REQUEST = b"GET /name HTTP/1.1\r\nHost: vip\r\n\r\n"
_NUMBER = struct.Struct("!Q")


@dataclass
class Count:
    """What happened in one stretch of time.

    ``connections``: open at its end; ``stalled``: of them, those that have waited ``STALLED_S`` for
    an answer by then. ``longest_ms``: of a TCP exchange. ``lost``: datagrams without
    an answer, by VIP. ``silent_ms``: the longest that a flow of datagrams was without one.
    """

    connections: int = 0
    stalled: int = 0
    exchanges: int = 0
    broken: list[str] = field(default_factory=list)
    longest_ms: float = 0.0
    sent: int = 0
    lost: dict[str, int] = field(default_factory=lambda: dict.fromkeys(VIPS, 0))
    silent_ms: float = 0.0


class Clients:
    """All connections and flows, and what they count."""

    def __init__(self) -> None:
        """Count nothing yet."""
        self.count = Count()
        self._open = 0
        self._asked_at: dict[asyncio.StreamWriter, float] = {}

    async def converse(self, vip: str, delay_s: float) -> None:
        """Exchange bytes on one connection until it breaks."""
        await asyncio.sleep(delay_s)
        try:
            async with asyncio.timeout(ANSWER_S):
                reader, writer = await asyncio.open_connection(vip, HTTP)
        except (OSError, TimeoutError) as error:
            self.count.broken.append(f"{vip}: not opened: {error!r}")
            return
        self._open += 1
        try:
            name = await self._exchange(reader, writer)
            while True:
                await asyncio.sleep(EXCHANGE_S)
                if (other := await self._exchange(reader, writer)) != name:
                    raise ConnectionError(f"answered by {other}, it was {name}")
        except (OSError, EOFError, TimeoutError) as error:
            self.count.broken.append(f"{vip}: {error!r}")
        self._open -= 1

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        self._asked_at[writer] = begin = time.monotonic()
        writer.write(_REQUEST)
        try:
            async with asyncio.timeout(ANSWER_S):
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]
                body = await reader.readexactly(int(length))
        finally:
            del self._asked_at[writer]
        self.count.exchanges += 1
        self.count.longest_ms = max(self.count.longest_ms, 1000 * (time.monotonic() - begin))
        return body.decode()

    async def send(self, flows: int, rate: int) -> None:
        """Send numbered datagrams for ever, by the flows in turn."""
        each = [await Flow.to(VIPS[index % len(VIPS)]) for index in range(flows)]
        due, number = time.monotonic(), 0
        while True:
            each[number % flows].send(number, self.count)
            number += 1
            due = max(due + 1 / rate, time.monotonic() - EXCHANGE_S)
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def report(self) -> Count:
        """End a count, and begin the next."""
        ended, self.count = self.count, Count()
        ended.connections = self._open
        late = time.monotonic() - STALLED_S
        ended.stalled = sum(asked_at < late for asked_at in self._asked_at.values())
        deadline = time.monotonic() + SETTLE_S
        while any(ended.lost.values()) and time.monotonic() < deadline:  # noqa: ASYNC110 - sockets
            await asyncio.sleep(LOOK_S)
        return ended


class Flow(asyncio.DatagramProtocol):
    """A socket that sends numbered datagrams and expects them back."""

    def __init__(self, vip: str) -> None:
        """Use ``to``."""
        self._vip = vip
        self._counts: dict[int, Count] = {}  # by number: whose datagram has no answer yet
        self._asked_at: float | None = None  # the first of them since the last answer

    @classmethod
    async def to(cls, vip: str) -> "Flow":
        """Open a flow to the echo servers of a VIP."""
        endpoint = asyncio.get_running_loop().create_datagram_endpoint(
            lambda: cls(vip), remote_addr=(vip, ECHO)
        )
        transport, flow = await endpoint
        make_room(transport)
        return flow

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the socket."""
        self._transport = cast("asyncio.DatagramTransport", transport)

    def send(self, number: int, count: Count) -> None:
        """Send one datagram, which belongs to a count."""
        if self._asked_at is None:
            self._asked_at = time.monotonic()
        self._counts[number] = count
        count.sent += 1
        count.lost[self._vip] += 1
        self._transport.sendto(_NUMBER.pack(number))

    def datagram_received(self, data: bytes, _address: object) -> None:
        """Count an answer, once."""
        count = self._counts.pop(_NUMBER.unpack(data)[0], None)
        if count is None:
            return
        count.lost[self._vip] -= 1
        if self._asked_at is not None:
            count.silent_ms = max(count.silent_ms, 1000 * (time.monotonic() - self._asked_at))
            self._asked_at = None


async def main(connections: int, flows: int, rate: int) -> None:
    """Run until stdin ends."""
    clients, stdin = Clients(), asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    tasks = [
        loop.create_task(clients.converse(VIPS[n % len(VIPS)], n * EXCHANGE_S / connections))
        for n in range(connections)
    ]
    tasks.append(loop.create_task(clients.send(flows, rate)))
    while await stdin.readline():
        print(json.dumps(asdict(await clients.report())), flush=True)
    for task in tasks:
        task.cancel()


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:4])))
