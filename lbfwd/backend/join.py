"""``lbfwd backend join``: what is asked, and the thread that keeps the backend registered."""

import asyncio
import re
import signal
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import aiohttp
import structlog

from lbfwd.backend.agent import Agent, Ending
from lbfwd.backend.control import control
from lbfwd.backend.registrar import EtcdRegistrar, HttpsRegistrar, Registrar
from lbfwd.backend.request import BackendError
from lbfwd.backend.watch import STOP_SIGNALS
from lbfwd.config.fleet import EtcdSettings
from lbfwd.config.key import KeyFileError, read_token
from lbfwd.config.values import IPAddress, parse_address
from lbfwd.fleet.etcd import connect
from lbfwd.fleet.etcd_wire import EtcdError
from lbfwd.fleet.registration import Registration, RegistrationError
from lbfwd.supervisor.notify import Notifier

FEED_S = 10.0
LAST_PORT = 65535
_NODE_URL = re.compile(r"https://(\[[0-9a-fA-F:.]+\]|[^/?#@:\[\]\s]+):(\d{1,5})", re.ASCII)

log = structlog.get_logger()


@dataclass(frozen=True)
class JoinRequest:
    """``etcd``, or ``nodes``: URLs of their registration endpoints. Paths are the operator's."""

    pools: tuple[str, ...]
    name: str
    address: IPAddress | None
    weight: int
    lease_s: int
    drain_s: float
    runtime: Path
    etcd: EtcdSettings | None = None
    nodes: tuple[str, ...] = ()
    token_file: Path | None = None
    ca_file: Path | None = None


def parse_node(text: str) -> str:
    """Check the URL of a node. Raises ValueError."""
    found = _NODE_URL.fullmatch(text.rstrip("/"))
    if not found or not 1 <= int(found[2]) <= LAST_PORT:
        raise ValueError(
            'a URL such as "https://lb1:9443" or "https://[2001:db8::1]:9443", with a port and '
            "nothing behind it"
        )
    return text.rstrip("/")


class Joined:
    """Within, this backend is registered, by a thread of its own. ``problem``: why it ended."""

    def __init__(self, request: JoinRequest, ended: Callable[[], None]) -> None:
        """Begin nothing yet. ``ended`` is called when it has left, or was refused."""
        self.problem = ""
        self._request = request
        self._ended = ended
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="join")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_rest: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()
        if self.problem and kind is None:
            raise BackendError(self.problem)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._main())
        except (BackendError, RegistrationError, EtcdError) as error:
            self.problem = str(error)
        except Exception as error:
            log.exception("join_crashed")
            self.problem = repr(error)
        self._ended()

    async def _main(self) -> None:
        request = self._request
        async with _registrar(request) as registrar:
            said = registrations(request, request.address or await _own_address(request))
            agent = Agent(registrar, said, request.lease_s)

            async def leave(drain_s: float) -> Ending:
                ending = await agent.leave(drain_s)
                self._stop.set()
                return ending

            async with control(agent, leave, request.runtime):
                tasks = asyncio.create_task(agent.run()), asyncio.create_task(self._stop.wait())
                try:
                    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                    if tasks[0].done():
                        tasks[0].result()
                    # Also while another leave waits: nobody may be left registered.
                    await agent.leave(request.drain_s)
                finally:
                    for task in tasks:
                        task.cancel()


def registrations(request: JoinRequest, address: IPAddress) -> dict[tuple[str, str], Registration]:
    """Return what is registered, by pool and name."""
    said = Registration(address=address, weight=request.weight, since=time.time())
    return {(pool, request.name): said for pool in request.pools}


@asynccontextmanager
async def _registrar(request: JoinRequest) -> AsyncIterator[Registrar]:
    try:
        token = read_token(request.token_file) if request.token_file else ""
    except KeyFileError as error:
        raise BackendError(f"--token-file {request.token_file}: {error}") from None
    if request.etcd is not None:
        async with connect(request.etcd, Path()) as etcd:
            yield EtcdRegistrar(etcd, token, request.lease_s)
        return
    try:
        tls = ssl.create_default_context(cafile=request.ca_file)
    except OSError as error:
        reason = error.strerror or str(error)
        raise BackendError(f"--ca-file {request.ca_file}: {reason}") from None
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        yield HttpsRegistrar(session, request.nodes, tls, request.lease_s)


async def _own_address(request: JoinRequest) -> IPAddress:
    """Return the address by which this machine reaches whom it registers at."""
    url = urlsplit((request.etcd.endpoints if request.etcd else request.nodes)[0])
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(url.hostname, url.port, type=socket.SOCK_DGRAM)
        family, kind, _protocol, _name, to = found[0]
        with socket.socket(family, kind) as sock:
            sock.connect(to)  # sends nothing
            own = sock.getsockname()[0]
    except OSError as error:
        reason = f"{url.hostname}: {error.strerror or error}"
        raise BackendError(f"own address unknown ({reason}): say --address") from None
    try:
        return parse_address(own)
    except ValueError as error:
        reason = f"{own} towards {url.hostname}: {error}"
        raise BackendError(f"own address unknown ({reason}): say --address") from None


def run_alone(request: JoinRequest) -> None:
    """Stay registered until SIGTERM, SIGINT or SIGHUP; something else unwraps the packets.

    Raises BackendError.
    """
    stop, notifier = threading.Event(), Notifier.inherited()
    before = {n: signal.signal(n, lambda *_: stop.set()) for n in STOP_SIGNALS}
    try:
        with Joined(request, stop.set):
            notifier.tell("READY=1")
            while not stop.wait(FEED_S):
                notifier.feed_watchdog()
            notifier.stopping()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
