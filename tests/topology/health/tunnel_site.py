"""The demo's network with nginx behind ``lbfwd backend``, and a Tunnel in the node's namespace.

client ── router ── node, and three backends behind the router: a and b with tunnels over IPv4, c
over IPv6. The node has nothing of lbfwd but the Tunnel, in a thread of the test's process.
"""

import asyncio
import socket
import subprocess
import sys
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar

from bench import nginx
from lbfwd.config import IPAddress, Node
from lbfwd.demo.lab import Host, eventually, stop
from lbfwd.demo.topology import NODE, PLACES, VIPS, Place
from lbfwd.health.monitor import asker, outcome_of
from lbfwd.health.outcome import Outcome
from lbfwd.health.probe import stream
from lbfwd.health.question import Question, Tcp
from lbfwd.health.route import Direct, Route, Tunnelled
from lbfwd.health.rp_filter import Finding
from lbfwd.health.tunnel import Tunnel
from lbfwd.net.resolve import Net, Resolution
from tests.topology.node.site import NGINX
from tests.topology.node.wires import enter

T = TypeVar("T")

START_S = 20.0
ANSWER_S = 5.0
SILENCE_S = 0.4
PROBE_MS = 1000
REQUEST = b"GET /name HTTP/1.0\r\n\r\n"
VIP = {family: ip_address(vip) for family, vip in VIPS.items()}
BACKEND = {place.name: ip_address(place.address) for place in PLACES}
CONFIG = Node(name="lb1", interfaces=("eth0",))


class Backend:
    """nginx, and a kit that can be stopped and started with other options."""

    def __init__(self, host: Host, place: Place, directory: Path) -> None:
        self.host, self.place = host, place
        self._root = directory / place.name
        (self._root / "files").mkdir(parents=True)
        text = "user root;" + NGINX.format(root=self._root, name=place.name)
        nginx.start(host, self._root, text)
        self._kit: subprocess.Popen[Any] | None = None

    def serve(self, vips: Iterable[str] = VIPS.values()) -> None:
        """Unwrap packets for these VIPs from now on."""
        if self._kit:
            stop(self._kit)
        words = [word for vip in vips for word in ("--vip", vip)]
        log = self._root / "kit.log"
        command = [sys.executable, "-m", "lbfwd.cli.main", "backend", *words]
        with log.open("w") as file:
            self._kit = self.host.start(
                *command, "--node", NODE[self.place.family], stdout=file, stderr=file
            )
        eventually(lambda: "backend_ready" in log.read_text(), START_S, "backend")
        eventually(lambda: ":80 " in self.host.run("ss", "-Hlnt"), START_S, "nginx listens")


@contextmanager
def rules(host: Host, *chains: str) -> Iterator[None]:
    """nftables chains of a host, for a while."""
    host.run("nft", "-f", "-", stdin="table inet broken {\n" + "\n".join(chains) + "\n}\n")
    try:
        yield
    finally:
        host.run("nft", "delete", "table", "inet", "broken")


def chain(hook: str, *statements: str) -> str:
    lines = [f"type filter hook {hook} priority -300;", *statements]
    return f"chain {hook} {{\n" + "\n".join(lines) + "\n}"


class Loop:
    """An event loop in a host's namespace; threads that it starts live there, too."""

    def __init__(self, host: Host) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = ThreadPoolExecutor(1)
        self._done = self._thread.submit(self._run, host.netns)

    def _run(self, netns: str) -> None:
        enter(netns)
        self._loop.run_forever()
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.shutdown()


class Asker:
    """A Tunnel that is open on a host, and what is asked through it."""

    def __init__(self, host: Host, mtu_check_s: int = 0) -> None:
        self.host = host
        self.wanted = {Tunnelled(v, b, mtu_check_s) for v in VIP.values() for b in BACKEND.values()}
        self._loop = Loop(host)
        self._open = True
        self.tunnel = self.do(self._make())

    async def _make(self) -> Tunnel:
        return Tunnel()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.do(work)

    def start(self) -> "Asker":
        self.look()
        self.do(self.tunnel.apply(self.wanted))
        return self

    def look(self) -> None:
        """Tell the tunnel where the backends are, as the supervisor does in every pass."""
        self.do(self.relook())

    async def relook(self) -> None:
        found = await asyncio.to_thread(resolve)
        await self.tunnel.look(CONFIG, found)

    def ask(self, family: int, name: str, answer_s: float = ANSWER_S) -> str:
        """Ask a backend for its name through the tunnel."""
        route = self.tunnel.route(VIP[family], BACKEND[name])
        return self.do(outcome(route, VIP[family], answer_s))

    def probe(self, family: int, name: str) -> Outcome:
        """Ask as the supervisor does."""
        question = Question(VIP[family], 80, BACKEND[name], Tcp(), 1000, PROBE_MS)
        return self.do(probed(question, self.tunnel.route(VIP[family], BACKEND[name])))

    def connected(self, family: int, name: str) -> socket.socket:
        """Return a connection through the tunnel; it is closed with a reset."""
        question = Question(VIP[family], 80, BACKEND[name], Tcp(), 1000, PROBE_MS)
        return self.do(connection(question, self.tunnel.route(VIP[family], BACKEND[name])))

    def datagrams(self, family: int, name: str) -> socket.socket:
        """Return a socket that sends to nobody's port at a backend through the tunnel."""
        return self.do(datagrams(self.tunnel.route(VIP[family], BACKEND[name]), VIP[family]))

    def is_silent(self, family: int, name: str) -> bool:
        """Whether a backend does not answer through the tunnel."""
        return self.ask(family, name, SILENCE_S) == "timeout"

    def blocked(self) -> tuple[Finding, ...]:
        """Wait until what blocks answers is found; returns it."""
        eventually(lambda: bool(self.tunnel.blocked), START_S, "the finding")
        return self.tunnel.blocked

    def ask_directly(self, name: str) -> str:
        return self.do(outcome(Direct(BACKEND[name]), BACKEND[name], ANSWER_S))

    def close(self) -> None:
        """Close the tunnel; twice is once."""
        if self._open:
            self._open = False
            self.do(self.tunnel.close())
            self._loop.close()


def resolve() -> Mapping[IPAddress, Resolution]:
    """Look the backends up in this thread's namespace."""
    net, found = Net(), dict[IPAddress, Resolution]()

    def resolved() -> bool:
        found.update(net.resolve(list(BACKEND.values()), []))
        return all(resolution.hops for resolution in found.values())

    try:
        eventually(resolved, START_S, "next hops")
    finally:
        net.close()
    return found


async def probed(question: Question, route: Route) -> Outcome:
    async with asker(question, route) as ask:
        return await outcome_of(question, ask)


async def connection(question: Question, route: Route) -> socket.socket:
    sock = stream(question, route)
    await asyncio.get_running_loop().sock_connect(sock, (str(question.target), question.port))
    return sock


async def datagrams(route: Route, target: IPAddress) -> socket.socket:
    sock = route.bind(socket.SOCK_DGRAM)
    sock.connect((str(target), 9))
    return sock


async def http(route: Route, target: IPAddress) -> str:
    """Ask nginx for its name, as a health check does."""
    loop = asyncio.get_running_loop()
    with route.bind(socket.SOCK_STREAM) as sock:
        await loop.sock_connect(sock, (str(target), 80))
        await loop.sock_sendall(sock, REQUEST)
        answer = b""
        while data := await loop.sock_recv(sock, 65536):
            answer += data
    return answer.decode().rsplit("\r\n", 1)[1]


async def outcome(route: Route, target: IPAddress, answer_s: float) -> str:
    """Return the name that nginx gave, ``timeout``, or the error's text."""
    try:
        async with asyncio.timeout(answer_s):
            return await http(route, target)
    except TimeoutError:
        return "timeout"
    except OSError as error:
        return str(error.strerror)
