"""MTU holes of tunnels: packets of the tunnel's full size that vanish without a word.

Once in a while an echo request of exactly the tunnel's MTU goes to a VIP at each backend, as a
client's packet would: DF is set inside and outside. Where a small one is answered and the full one
is not, clients' uploads hang, while every small health check passes. Where an ICMP error tells the
path's MTU, the supervisor lowers the tunnel's, and there is no hole (RFC 2923 section 2.1).
"""

import asyncio
import random
import socket
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from lbfwd.config import IPAddress
from lbfwd.health import echo
from lbfwd.health.route import Tunnelled
from lbfwd.health.tunnel_way import Way
from lbfwd.supervisor import log

SMALL = 100  # bytes of an IP packet that fits anywhere
TRIES = 3
ANSWER_S = 1.0
SETTLE_S = 7.0  # the supervisor reads learned path MTUs every five seconds
AT_ONCE = 32
RECEIVE_BYTES = 65536
MTU_DISCOVER = {4: (socket.IPPROTO_IP, 10), 6: (socket.IPPROTO_IPV6, 23)}
PMTUDISC_PROBE = 3  # DF, whatever the route's MTU says (ip(7), ipv6(7))


@dataclass(frozen=True)
class Hole:
    """What gets lost on the way to a backend, and what passes: bytes of a packet in the tunnel.

    ``overhead``: bytes around it.
    """

    backend: IPAddress
    lost: int
    passes: int
    overhead: int

    @property
    def reason(self) -> str:
        """One line for people."""
        return (
            f"packets of {self.lost} bytes to {self.backend} through the tunnel are lost, and no "
            f"ICMP error about it comes here; {self.passes} bytes pass"
        )

    @property
    def fix(self) -> str:
        """What helps until the path is mended: the same route, with what passes as its MTU."""
        way = f"$(ip route get {self.backend} | grep -oE '(via [^ ]+ )?dev [^ ]+')"
        return (
            f"ip route replace {self.backend} {way} mtu {self.passes + self.overhead}  # or raise "
            f"the MTU of the path to {self.lost + self.overhead} bytes, or let ICMP errors through"
        )


class Ways(Protocol):
    """The tunnel, as far as it matters here."""

    def ways(self, vip: IPAddress, backend: IPAddress) -> tuple[Way, ...]:
        """Return the ways to a backend. Raises OSError."""

    def named_socket(
        self, kind: socket.SocketKind, vip: IPAddress, way: Way
    ) -> tuple[socket.socket, int]:
        """Return a socket whose packets go this way, and its name. Raises OSError."""


class MtuWatch:
    """Checks each backend's tunnel every ``mtu_check_s``; ``holes`` has what was found."""

    def __init__(self, tunnel: Ways) -> None:
        """Check nothing yet."""
        self._tunnel = tunnel
        self._tasks: dict[Tunnelled, asyncio.Task[None]] = {}
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._unanswered: set[IPAddress] = set()
        self._holes: dict[IPAddress, Hole] = {}
        self._log = log.get()

    @property
    def holes(self) -> Mapping[IPAddress, Hole]:
        """What is wrong with a tunnel, by backend."""
        return self._holes

    async def apply(self, wanted: Collection[Tunnelled]) -> None:
        """Watch these; a tunnel belongs to a backend, so one VIP of each tells."""
        order = sorted(wanted, key=lambda target: (target.vip.version, target.vip), reverse=True)
        chosen = {target.backend: target for target in order if target.mtu_check_s}
        targets = set(chosen.values())
        await self._end(self._tasks.keys() - targets)
        for target in targets - self._tasks.keys():
            self._tasks[target] = asyncio.create_task(self._watch(target))

    async def close(self) -> None:
        """End all checks."""
        await self._end(set(self._tasks))

    async def _end(self, targets: Collection[Tunnelled]) -> None:
        tasks = [self._tasks.pop(target) for target in targets]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for target in targets:
            self._holes.pop(target.backend, None)
            self._unanswered.discard(target.backend)

    async def _watch(self, target: Tunnelled) -> None:
        await asyncio.sleep(random.uniform(0, min(target.mtu_check_s, SETTLE_S)))  # noqa: S311
        while True:
            async with self._turns:
                try:
                    hole, answered = await self._check(target), True
                except TimeoutError:
                    hole, answered = None, False
                except OSError:  # no way to the backend now: its probes say so
                    hole, answered = self._holes.get(target.backend), True
            self._note(target, hole, answered)
            await asyncio.sleep(target.mtu_check_s)

    def _note(self, target: Tunnelled, hole: Hole | None, answered: bool) -> None:
        backend, before = target.backend, self._holes.pop(target.backend, None)
        if hole:
            self._holes[backend] = hole
        facts = {"backend": str(backend), "vip": str(target.vip)}
        if hole and hole != before:
            self._log.warning("tunnel_mtu_hole", **facts, reason=hole.reason, fix=hole.fix)
        elif before and not hole and answered:
            self._log.info("tunnel_mtu_good", **facts)
        if not answered and backend not in self._unanswered:
            self._log.info("tunnel_mtu_unknown", **facts, reason="echo requests are not answered")
        (self._unanswered.discard if answered else self._unanswered.add)(backend)

    async def _check(self, target: Tunnelled) -> Hole | None:
        """Return what is wrong, if anything is.

        Raises TimeoutError when a small echo is not answered either, OSError without a way.
        """
        vip = target.vip
        for way in self._tunnel.ways(vip, target.backend):
            if not await self._passes(vip, way, SMALL):
                raise TimeoutError
            if await self._passes(vip, way, way.mtu):
                continue
            await asyncio.sleep(SETTLE_S)
            if way not in self._tunnel.ways(vip, target.backend) or await self._passes(
                vip, way, way.mtu
            ):
                continue  # the path's MTU was learned meanwhile
            passes = await self._largest(vip, way)
            return Hole(target.backend, way.mtu, passes, way.path_mtu - way.mtu)
        return None

    async def _largest(self, vip: IPAddress, way: Way) -> int:
        """Return the largest packet that is answered, in bytes."""
        good, bad = SMALL, way.mtu
        while bad - good > 1:
            middle = (good + bad) // 2
            if await self._passes(vip, way, middle):
                good = middle
            else:
                bad = middle
        return good

    async def _passes(self, vip: IPAddress, way: Way, length: int) -> bool:
        """Tell whether an echo of ``length`` bytes is answered, within a few tries."""
        sock, name = self._tunnel.named_socket(socket.SOCK_RAW, vip, way)
        with sock:
            sock.setsockopt(*MTU_DISCOVER[vip.version], PMTUDISC_PROBE)
            sock.connect((str(vip), 0))  # hears of nobody else
            for sequence in range(TRIES):
                sock.send(echo.request(vip.version, name, sequence, length))
                if await _answered(sock, vip.version, name, sequence):
                    return True
        return False


async def _answered(sock: socket.socket, version: int, name: int, sequence: int) -> bool:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(ANSWER_S):
            while not echo.answers(
                version, await loop.sock_recv(sock, RECEIVE_BYTES), name, sequence
            ):
                pass
    except TimeoutError:
        return False
    return True
