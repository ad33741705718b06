"""What ``lbfwd trace`` tells: where a flow goes, and why. Frozen models, JSON by pydantic."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from lbfwd.config import IPAddress
from lbfwd.encap import Outer
from lbfwd.explain import Explanation, Sighting
from lbfwd.flow import Flow, Protocol
from lbfwd.health.standing import BackendKey
from lbfwd.supervisor.status import BackendStatus, HopStatus


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TraceEntry(_Model):
    """The flow's entry in one worker's flow table."""

    worker: int
    pool: str
    backend: str
    """Empty pool and backend: one that has left the configuration since."""
    state: str
    """``unconfirmed`` (one packet was seen), ``tcp``, ``udp`` or ``closing``."""
    age_s: int
    """Since a packet was seen."""
    bucket: int
    """1 or 2: of the two that the flow may have its entry in."""
    usable: bool
    """Its backend may serve the service now."""


class TraceService(_Model):
    """The service that the flow is for."""

    name: str
    affinity: str
    pool: str
    fingerprint: str
    """Equal on all nodes that forward this service alike."""


class TraceTable(_Model):
    """What the Maglev table says; ``bucket`` of ``size``."""

    key: str
    """The flow key as it was hashed, in hexadecimal digits."""
    hash: str
    size: int
    bucket: int
    backend: str
    """Empty: no backend takes part."""


class TraceHeader(_Model):
    """The outer header as it would be sent; ``length``: of the outer IP packet, in bytes."""

    interface: str
    src_mac: str
    dst_mac: str
    source: IPAddress
    destination: IPAddress
    ttl: int
    tos: int
    dont_fragment: bool | None
    length: int
    gre_protocol: str
    hex: str


class Trace(_Model):
    """The next packet of a flow on one node, had it come now. Nothing was sent or changed."""

    node: str
    generation: int
    protocol: Protocol
    source: IPAddress
    source_port: int
    destination: IPAddress
    destination_port: int
    worker: int | None
    """The slot that the fanout program picks; None: it depends on how the packet is received."""
    outcome: Literal["forwarded", "answered", "dropped"]
    reason: str
    """Why it is not forwarded (docs/drop-reasons.md); empty when it is."""
    because: str
    """The choice, in a sentence."""
    chosen_by: Literal["flow_table", "maglev_table", "nobody"]
    service: TraceService | None
    table: TraceTable | None
    entries: tuple[TraceEntry, ...]
    pool: str
    backend: BackendStatus | None
    hop: HopStatus | None
    outer: TraceHeader | None


@dataclass(frozen=True)
class Choice:
    """Who chose, and a sentence that says so."""

    by: Literal["flow_table", "maglev_table", "nobody"]
    because: str


ANSWERED = ("echo_answered", "rejected")
_STANDINGS = {
    "drained": "; it drains: live flows stay, new ones do not come",
    "paused": "; it has paused: live flows stay, new ones do not come",
    "gone": "; its lease is lost: live flows stay until its hold-down is over",
    "failed_open": "; its checks fail, but the pool fails open: it is used all the same",
}
_REDIRECTED, _NEW = "flow_redirected", "flow_new"


def outcome(reason: str) -> Literal["forwarded", "answered", "dropped"]:
    """Return what becomes of a packet that ends with this drop reason."""
    if reason == "none":
        return "forwarded"
    return "answered" if reason in ANSWERED else "dropped"


def choice(
    found: Explanation,
    worker: int | None,
    names: Mapping[tuple[int, int], BackendKey],
    chosen: BackendStatus | None,
) -> Choice:
    """Say who chose the backend. ``names``: backends by slot and incarnation (``Tables.seats``)."""
    if found.backend is None or chosen is None:
        return Choice("nobody", _unserved(found))
    found_by = _found_by(found, worker, names)
    return Choice(found_by.by, found_by.because + _STANDINGS.get(chosen.condition, ""))


def _found_by(
    found: Explanation, worker: int | None, names: Mapping[tuple[int, int], BackendKey]
) -> Choice:
    table = "the Maglev table names it"
    if _REDIRECTED in found.events:
        entry = _youngest(found.sightings, worker)
        before = names.get((entry.backend, entry.incarnation)) if entry else None
        was = f"backend {before[1]}" if before else "a backend that is gone"
        return Choice("maglev_table", f"its entry names {was}, which may not serve it; {table}")
    own = [sighting for sighting in found.sightings if sighting.backend == found.backend]
    entry = _youngest(own, worker)
    if entry is None or _NEW in found.events:
        return Choice("maglev_table", f"no worker has a usable entry for the flow; {table}")
    because = f"the flow table of worker {entry.worker} has it"
    if found.table_backend != found.backend:
        because += "; new flows of this bucket go elsewhere"
    return Choice("flow_table", because)


def header(outer: Outer, interface: str) -> TraceHeader:
    """Return an outer header as the answer has it."""
    return TraceHeader(
        interface=interface,
        src_mac=outer.src_mac,
        dst_mac=outer.dst_mac,
        source=outer.source,
        destination=outer.destination,
        ttl=outer.ttl,
        tos=outer.tos,
        dont_fragment=outer.dont_fragment,
        length=outer.length,
        gre_protocol=f"0x{outer.gre_protocol:04x}",
        hex=outer.raw.hex(),
    )


def ends(flow: Flow) -> dict[str, object]:
    """Return the flow as fields of the answer."""
    return {
        "protocol": flow.protocol,
        "source": flow.source,
        "source_port": flow.source_port,
        "destination": flow.destination,
        "destination_port": flow.destination_port,
    }


def _youngest(sightings: Sequence[Sighting], worker: int | None) -> Sighting | None:
    """Return the entry that was seen last; the worker's own, of several in one second."""
    return min(sightings, key=lambda s: (s.age_s, s.worker != worker), default=None)


_REASONS = {
    "no_vip": "the destination is no VIP of this node",
    "no_service": "the VIP has no service for this protocol and port",
    "echo_answered": "the node answers echo requests itself",
    "echo_refused": "the node is told to drop echo requests",
    "no_backend": "no backend of the pool can serve",
    "rejected": "no backend of the pool can serve; the sender is told so",
}


def _unserved(found: Explanation) -> str:
    if not found.generation:
        return "nothing is published yet"
    return _REASONS.get(found.reason, found.reason)
