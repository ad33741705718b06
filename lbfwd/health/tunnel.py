"""Probes that go where the clients' packets go: to the VIP, in GRE, to one backend.

The kernel's own TCP, UDP and ICMP ask; a TUN device and policy routing (tunnel_device) bring their
packets to a pump (tunnel_pump), which wraps them in the header that the workers write. The backend
answers this node straight, as it answers every client. docs/health-tunnel.md.
"""

import asyncio
import errno
import random
import socket
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor

from lbfwd.config import IPAddress, Node
from lbfwd.health import echo, tunnel_device, tunnel_filter
from lbfwd.health.route import Tunnelled
from lbfwd.health.rp_filter import Finding
from lbfwd.health.tunnel_answers import AnswerWatch
from lbfwd.health.tunnel_device import Survey
from lbfwd.health.tunnel_error import TunnelError
from lbfwd.health.tunnel_mtu import Hole, MtuWatch
from lbfwd.health.tunnel_names import Names
from lbfwd.health.tunnel_pump import Pump, sweep
from lbfwd.health.tunnel_way import Directory, Way
from lbfwd.net import bpf
from lbfwd.net.resolve import Resolution
from lbfwd.ring import ProbeCounters
from lbfwd.supervisor import log
from lbfwd.supervisor.blocking import in_thread

__all__ = ["Tunnel", "TunnelError", "TunnelRoute"]

SO_MARK = 36
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
ICMP = {4: socket.IPPROTO_ICMP, 6: socket.IPPROTO_ICMPV6}
RESTORING = "it is being set up"
UNKNOWN = Resolution((), "not looked up yet")


class TunnelRoute:
    """The way to a VIP at one backend."""

    def __init__(self, tunnel: "Tunnel", vip: IPAddress, backend: IPAddress) -> None:
        """Use ``Tunnel.route``."""
        self._tunnel = tunnel
        self._ends = vip, backend

    def bind(self, kind: socket.SocketKind) -> socket.socket:
        """Return a non-blocking socket whose packets to the VIP go to this backend alone.

        SOCK_STREAM, SOCK_DGRAM, or SOCK_RAW for ICMP. Have a stream reset when it is closed: a
        TIME_WAIT would keep its port. Raises OSError, its ``strerror`` for people.
        """
        return self.bind_named(kind)[0]

    def bind_named(self, kind: socket.SocketKind) -> tuple[socket.socket, int]:
        """Return a socket as ``bind`` does, and the name by which the pump knows its packets."""
        way = random.choice(self._tunnel.ways(*self._ends))  # noqa: S311 - each next hop in turn
        return self._tunnel.named_socket(kind, self._ends[0], way)


class Tunnel:
    """Opens when the first probe is to go through it, and stays until it is closed."""

    def __init__(self) -> None:
        """Set nothing up yet."""
        self._thread = ThreadPoolExecutor(1, "lbfwd-probe-net")
        self._lock = asyncio.Lock()
        self._pump: Pump | None = None
        self._names = Names()
        self._wanted: frozenset[Tunnelled] = frozenset()
        self._node: Node | None = None
        self._resolutions: Mapping[IPAddress, Resolution] = {}
        self._survey = Survey((), "")
        self._own: frozenset[IPAddress] = frozenset()
        self._trouble = RESTORING  # why there is no pump, where there is none
        self._filter: tuple[frozenset[IPAddress], str] = (frozenset(), "")
        # What is wrong with a tunnel that was just set up: the next look lets it be, for what we
        # change calls for a look.
        self._let_be = ""
        self._directory = Directory()
        self._mtus = MtuWatch(self)
        self._answers = AnswerWatch()
        self._log = log.get()

    async def apply(self, wanted: Collection[Tunnelled]) -> None:
        """Serve these from now on. Raises TunnelError when there can be no tunnel."""
        async with self._lock:
            self._wanted = frozenset(wanted)
            if self._wanted:
                await self._keep()
            else:
                await self._take_away()
                self._answers.look(frozenset(), frozenset())
            await self._mtus.apply(self._wanted)

    async def look(self, node: Node, resolutions: Mapping[IPAddress, Resolution]) -> None:
        """Take up where backends are now, and put right what others changed of the tunnel.

        Raises TunnelError.
        """
        async with self._lock:
            self._node, self._resolutions = node, resolutions
            if self._wanted:
                await self._keep()

    async def close(self) -> None:
        """Take everything away; sockets that are still open lead nowhere."""
        try:
            async with self._lock:
                await self._mtus.close()
                await self._answers.close()
                await self._take_away()
        finally:
            self._thread.shutdown()

    def route(self, vip: IPAddress, backend: IPAddress) -> TunnelRoute:
        """Return the way to a VIP at one backend; it stays good whatever changes."""
        return TunnelRoute(self, vip, backend)

    def counters(self) -> ProbeCounters | None:
        """Return what the pump sent, and what it did not; None while there is none."""
        return self._pump.counters() if self._pump else None

    @property
    def mtu_holes(self) -> Mapping[IPAddress, Hole]:
        """What was found wrong with the MTU of a tunnel, by backend."""
        return self._mtus.holes

    @property
    def blocked(self) -> tuple[Finding, ...]:
        """Why the kernel would not let answers in."""
        return self._answers.blocked

    @property
    def in_use(self) -> bool:
        """Whether anything is to be asked through it."""
        return bool(self._wanted)

    @property
    def trouble(self) -> str:
        """Why no probe can go through, empty when all can."""
        if self._pump is None:
            return self._trouble
        return self._pump.failure or self._survey.detour

    # ---- for routes and for the check of MTUs

    def ways(self, vip: IPAddress, backend: IPAddress) -> tuple[Way, ...]:
        """Return the ways to a backend, at least one. Raises OSError naming why there is none."""
        if vip in self._own:
            text = f"VIP {vip} is an address of this node: no packet to it leaves"
            raise OSError(errno.EADDRINUSE, text)
        found = self._directory.ways.get(backend, ())
        if not found:
            reason = self._directory.resolutions.get(backend, UNKNOWN).reason
            raise OSError(errno.EHOSTUNREACH, reason)
        return found

    def named_socket(
        self, kind: socket.SocketKind, vip: IPAddress, way: Way
    ) -> tuple[socket.socket, int]:
        """Return a socket whose packets go this way, and its name.

        Raises OSError as ``TunnelRoute.bind``.
        """
        source = way.sources.get(vip.version)
        if source is None:
            text = f"this node has no global IPv{vip.version} address that {vip} could answer"
            raise OSError(errno.EADDRNOTAVAIL, text)
        if (pump := self._pump) is None or self.trouble:
            raise OSError(errno.ENETDOWN, f"no tunnel for probes: {self.trouble}")
        protocol = ICMP[vip.version] if kind == socket.SOCK_RAW else 0
        sock = socket.socket(FAMILIES[vip.version], kind | socket.SOCK_NONBLOCK, protocol)
        try:
            sock.setsockopt(socket.SOL_SOCKET, SO_MARK, tunnel_device.MARK)
            name = self._names.bind(sock, source)
            if protocol:
                bpf.attach(sock, echo.heard(vip.version, name))
        except BaseException:
            sock.close()
            raise
        pump.aim(name, way)
        return sock, name

    # ---- details

    async def _keep(self) -> None:
        """Open the tunnel, or set it up again where others broke it; then find the ways."""
        await self._survey_now()
        reason = self.trouble if self._pump else ""
        if reason and reason == self._let_be:
            self._let_be = ""
            raise TunnelError(reason)
        if reason:
            await self._shut()
        if self._pump is None:
            await self._open()
        if reason:
            self._log.warning("probe_tunnel_restored", reason=reason)
        await self._keep_filter()
        await self._find_ways()

    async def _open(self) -> None:
        try:
            self._pump = await in_thread(self._thread, Pump)
        except TunnelError as error:
            self._trouble = str(error)
            raise
        self._trouble = RESTORING
        await self._survey_now()
        self._let_be = self.trouble
        if self._let_be:
            raise TunnelError(self._let_be)

    async def _keep_filter(self) -> None:
        vips = frozenset(target.vip for target in self._wanted)
        if self._filter != (vips, await in_thread(self._thread, tunnel_filter.listing)):
            self._filter = vips, await in_thread(self._thread, tunnel_filter.install, vips)

    async def _survey_now(self) -> None:
        vips = {target.vip.version: target.vip for target in self._wanted}
        self._survey = await in_thread(self._thread, tunnel_device.survey, vips.values())
        self._own = frozenset(own.address for own in self._survey.addresses)

    async def _find_ways(self) -> None:
        if self._node is None:
            return
        vips = frozenset(target.vip for target in self._wanted)
        local = tuple(own for own in self._survey.addresses if own.address not in vips)
        wanted = {target.backend for target in self._wanted}
        found = {backend: r for backend, r in self._resolutions.items() if backend in wanted}
        renewed = self._directory.renewed
        self._directory = await in_thread(self._thread, renewed, self._node, local, found)
        self._answers.look(vips, self._directory.interfaces)

    async def _take_away(self) -> None:
        await self._shut()
        await in_thread(self._thread, sweep)

    async def _shut(self) -> None:
        """Let the device go. Rules and filter stay: a probe under way must not leave without it."""
        pump, self._pump = self._pump, None
        if pump:
            await in_thread(self._thread, pump.close)
