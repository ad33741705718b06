"""What is asked of which backend; one probe serves all who ask the same question. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from lbfwd.config import Backend, Config, Health, IPAddress, Service
from lbfwd.config.health import QUERY_TYPES, RCODES, text_bytes
from lbfwd.config.model import RegisteredBackend
from lbfwd.health.standing import BackendKey


@dataclass(frozen=True)
class Tcp:
    """A connection comes to be."""


@dataclass(frozen=True)
class Http:
    """``GET path`` has a status of ``statuses`` (pairs: from, to) and a body that holds ``body``.

    ``host``: the Host header; empty: the address asked. ``sni``: asked for and verified.
    """

    path: str
    host: str
    statuses: tuple[tuple[int, int], ...]
    body: bytes
    tls: bool = False
    sni: str = ""
    verify: bool = False


@dataclass(frozen=True)
class Dns:
    """A query of this name and type (numbers of RFC 1035 section 3.2) has this code."""

    name: str
    type: int
    rcode: int


@dataclass(frozen=True)
class Udp:
    """An answer to ``payload`` holds ``expect``; empty: no "port unreachable" comes."""

    payload: bytes
    expect: bytes


@dataclass(frozen=True)
class Token:
    """An echo reply brings a random token back: whoever answered got what this backend was sent."""


Ask = Tcp | Http | Dns | Udp | Token


@dataclass(frozen=True)
class Question:
    """All that an answer depends on.

    ``target``, ``port``: who is asked (0: there is no port). ``backend``: through whose tunnel;
    None: through none.
    """

    target: IPAddress
    port: int
    backend: IPAddress | None
    ask: Ask
    interval_ms: int
    timeout_ms: int
    mtu_check_s: int = 0

    @property
    def about(self) -> IPAddress:
        """The backend that an answer is about."""
        return self.backend or self.target

    def __str__(self) -> str:
        host = f"[{self.target}]" if self.target.version == 6 else str(self.target)
        place = f"{host}:{self.port}" if self.port else str(self.target)
        tunnel = f" through the tunnel to {self.backend}" if self.backend else ""
        return f"{type(self.ask).__name__.lower()} {place}{tunnel}"


def questions(config: Config) -> dict[BackendKey, tuple[Question, ...]]:
    """Return what each backend is asked, of pools that have a check.

    A backend has to answer all: through the tunnel it is asked for every VIP of its pool. One that
    registered itself is asked for a token besides.
    """
    services: dict[str, list[Service]] = {}
    for service in config.services:
        services.setdefault(service.pool, []).append(service)
    once: dict[Question, Question] = {}  # so that equal questions are one object
    return {
        (pool.name, backend.name): tuple(
            once.setdefault(question, question)
            for question in _of_backend(pool.health, backend, services.get(pool.name, []))
        )
        for pool in config.pools
        if pool.health.type != "none" or pool.registration
        for backend in pool.backends
    }


def _of_backend(health: Health, backend: Backend, services: list[Service]) -> Iterator[Question]:
    if isinstance(backend, RegisteredBackend):
        timing = (Token(), health.interval_ms, health.timeout_ms, health.mtu_check_s)
        for vip in dict.fromkeys(service.vip for service in services):
            yield Question(vip, 0, backend.address, *timing)
    yield from _of_pool(health, backend, services)


def _of_pool(health: Health, backend: Backend, services: list[Service]) -> Iterator[Question]:
    ask = _ask(health)
    if ask is None:
        return
    # rules_health.py sees to it that the services have one port in common where none is given.
    port = health.port or next((s.port for s in services if s.port), None)
    if port is None:
        return
    timing = (ask, health.interval_ms, health.timeout_ms)
    if health.via == "direct":
        yield Question(backend.address, port, None, *timing)
        return
    for vip in dict.fromkeys(service.vip for service in services):
        yield Question(vip, port, backend.address, *timing, health.mtu_check_s)


def _ask(health: Health) -> Ask | None:
    match health.type:
        case "none":
            return None
        case "tcp":
            return Tcp()
        case "dns":
            return Dns(health.query, QUERY_TYPES[health.query_type], RCODES[health.rcode])
        case "udp":
            return Udp(text_bytes(health.payload), text_bytes(health.expect))
    tls = health.type == "https"
    return Http(
        path=health.path,
        host=health.host,
        statuses=tuple(map(_status_range, health.status)),
        body=text_bytes(health.body),
        tls=tls,
        sni=(health.sni or _name_of(health.host)) if tls else "",
        verify=tls and health.verify,
    )


def _status_range(text: str) -> tuple[int, int]:
    low, _, high = text.partition("-")
    return int(low), int(high or low)


def _name_of(host: str) -> str:
    """Return the host of a Host header, without its port and brackets."""
    if host.startswith("["):
        return host[1 : host.index("]")]
    return host.partition(":")[0]
