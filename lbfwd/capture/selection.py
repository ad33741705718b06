"""What a capture is of, as the operator asks for it, against what the node says of itself. Pure."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from lbfwd.capture.packet import PROTOCOLS, Flow
from lbfwd.capture.program import Pattern, Wanted
from lbfwd.config import IPAddress
from lbfwd.flow import parse_end
from lbfwd.supervisor.status import BackendStatus, ServiceStatus, Status

ANY = "any"
# Reasons that lie in a moment (a full ring, a rate, a fragment's companions), not in a packet and
# the tables: they are counted, but no packet can be said to have met with one.
MOMENTARY = frozenset({
    "cut_by_ring", "fragment_unmatched", "fragment_no_room", "rate_limited", "bad_offload",
    "tx_not_ready", "tx_ring_full", "tx_refused", "tx_link_down", "worker_died",
})  # fmt: skip


class CaptureError(Exception):
    """There is no such thing to capture, or no way to; the text says why."""


@dataclass(frozen=True)
class Asked:
    """The operator's words; empty: no restriction. All of them have to hold for a packet.

    ``backend``: its name, its address or POOL/NAME; ``flow``: protocol, source and destination;
    ``drop``: a reason, or ``any``.
    """

    service: str = ""
    backend: str = ""
    flow: tuple[str, str, str] | None = None
    drop: str = ""
    before: bool = True
    after: bool = True


@dataclass(frozen=True)
class Selection:
    """What is captured. Services by VIP, protocol and port; backends by address.

    ``only``: packets of these services; None: of any, and of none (dropped ones). ``backends``:
    towards these, with their names by pool; ``named`` says that no other packet is wanted.
    ``drop``: dropped for this reason, or for ``any``; empty: dropped or not.
    """

    services: dict[tuple[IPAddress, int, int | None], ServiceStatus]
    backends: dict[IPAddress, dict[str, str]]
    vips: frozenset[IPAddress]
    only: frozenset[str] | None
    named: bool
    pattern: Pattern | None
    drop: str
    before: bool
    after: bool

    def wanted(self, receives: bool, sends: bool, sample: int, snaplen: int) -> Wanted:
        """Return what an interface's filter is to admit."""
        return Wanted(
            vips=self.vips,
            backends=self.backends,
            pattern=self.pattern,
            before=self.before and receives,
            after=self.after and sends,
            sample=sample,
            snaplen=snaplen,
        )

    def contents(self) -> frozenset[str]:
        """Return what is captured, one text for each service and each backend."""
        services = (
            f"service {s.name} ({s.protocol} {s.vip}, port {s.port or 'any'})"
            for s in self.services.values()
            if self.only is None or s.name in self.only
        )
        backends = (
            f"backend {pool}/{name} ({address})"
            for address, names in self.backends.items()
            for pool, name in names.items()
        )
        return frozenset((*services, *backends))

    def service_of(self, flow: Flow) -> ServiceStatus | None:
        """Return the service that answers for a flow: its port's, or that of every port."""
        exact = self.services.get((flow.vip, flow.protocol, flow.port))
        return exact or self.services.get((flow.vip, flow.protocol, None))

    def backend_name(self, address: IPAddress, flow: Flow | None) -> str:
        """Return what a backend is called in the pool of the flow's service."""
        service = self.service_of(flow) if flow else None
        names = self.backends.get(address, {})
        return names.get(service.pool if service else "", next(iter(names.values()), str(address)))

    def has(self, flow: Flow | None) -> bool:
        """Whether a packet of this flow (None: of no flow) is wanted; ports may not be known."""
        if flow is None:
            return self.only is None and self.pattern is None
        if self.only is not None and flow.port is not None:
            service = self.service_of(flow)
            if service is None or service.name not in self.only:
                return False
        return self.pattern is None or _fits(self.pattern, flow)


def select(status: Status, asked: Asked) -> Selection:
    """Find what is asked for. Raises CaptureError naming what there is not."""
    services = _services(status.services, asked.service)
    pattern = _pattern(asked.flow) if asked.flow else None
    if pattern is None and asked.service:
        service = services[0]
        pattern = Pattern(service.vip, PROTOCOLS[service.protocol], service.port)
    backends = _backends(status, asked.backend)
    if asked.backend:
        pools = {pool for pool, _backend in backends}
        services = [service for service in services if service.pool in pools]
        if not services:
            raise CaptureError(f"--backend {asked.backend}: no service that is captured uses it")
    _check_reason(status, asked.drop)
    vips = frozenset(service.vip for service in services)
    if pattern and pattern.vip not in vips:
        raise CaptureError(f"--flow: {pattern.vip} is not a VIP of what is captured")
    return Selection(
        services={(s.vip, PROTOCOLS[s.protocol], s.port): s for s in status.services},
        backends=_names(backends),
        vips=vips,
        only=frozenset(s.name for s in services) if asked.service or asked.backend else None,
        named=bool(asked.backend),
        pattern=pattern,
        drop=asked.drop,
        before=asked.before,
        after=asked.after and not asked.drop,
    )


def _services(services: Iterable[ServiceStatus], name: str) -> list[ServiceStatus]:
    found = [service for service in services if name in ("", service.name)]
    if not found:
        text = f"--service {name}: no such service" if name else "the node has no service"
        raise CaptureError(text)
    return found


def _backends(status: Status, name: str) -> list[tuple[str, BackendStatus]]:
    found = [
        (pool.name, backend)
        for pool in status.pools
        for backend in pool.backends
        if name in ("", backend.name, str(backend.address), f"{pool.name}/{backend.name}")
    ]
    if name and not found:
        raise CaptureError(f"--backend {name}: no such backend")
    return found


def _names(backends: Iterable[tuple[str, BackendStatus]]) -> dict[IPAddress, dict[str, str]]:
    names: dict[IPAddress, dict[str, str]] = defaultdict(dict)
    for pool, backend in backends:
        names[backend.address][pool] = backend.name
    return dict(names)


def _check_reason(status: Status, reason: str) -> None:
    if reason in ("", ANY):
        return
    if reason not in status.drops:
        raise CaptureError(f"--drop {reason}: no such reason; docs/drop-reasons.md lists them")
    if reason in MOMENTARY:
        raise CaptureError(
            f"--drop {reason}: it lies in the moment, not in the packet, so no packet can be told "
            "to have met with it; lbfwd status counts them"
        )


def _pattern(words: tuple[str, str, str]) -> Pattern:
    protocol, source, destination = words
    if protocol not in PROTOCOLS:
        raise CaptureError(f"--flow {protocol}: must be tcp or udp")
    try:
        client, client_port = parse_end("source", source)
        vip, port = parse_end("destination", destination)
    except ValueError as error:
        raise CaptureError(f"--flow {error}") from None
    if client.version != vip.version:
        raise CaptureError(f"--flow {client} {vip}: must be of one family")
    return Pattern(vip, PROTOCOLS[protocol], port, client, client_port)


def _fits(pattern: Pattern, flow: Flow) -> bool:
    """Whether a flow is the pattern's; a later fragment's ports are not known."""
    fixed = (
        pattern.vip == flow.vip
        and pattern.protocol == flow.protocol
        and pattern.source in (None, flow.source)
    )
    ports = ((pattern.port, flow.port), (pattern.source_port, flow.source_port))
    return fixed and all(None in pair or pair[0] == pair[1] for pair in ports)
