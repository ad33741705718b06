"""What would become of a packet, and why: the packet path itself, run in memory of its own.

Nothing that a worker, a counter or another reader sees is changed: ``lbfwd_rehearsal_new`` maps the
shared files copy-on-write (mmap(2), MAP_PRIVATE).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from lbfwd._ringlib import ffi, lib
from lbfwd.ring import DROP_REASONS, EVENTS, VNET_BYTES, Worker, tx_geometry

_STATES = {
    lib.LBFWD_FLOW_UNCONFIRMED: "unconfirmed",
    lib.LBFWD_FLOW_TCP: "tcp",
    lib.LBFWD_FLOW_UDP: "udp",
    lib.LBFWD_FLOW_CLOSING: "closing",
}
_TX_FRAMES = 16
_LARGEST_MTU = 9000


@dataclass(frozen=True)
class Sighting:
    """A flow's entry in one worker's table.

    ``bucket``: 1 or 2, of the flow's two. ``usable``: its backend may serve the service now.
    """

    worker: int
    backend: int
    incarnation: int
    state: str
    age_s: int
    bucket: int
    usable: bool


@dataclass(frozen=True)
class Explanation:
    """How one packet goes. Services and backends are slots; None: none.

    ``key``: the flow key as it was hashed (docs/architecture.md), empty where the packet is for no
    service. ``table_backend``: whom the Maglev table names; ``backend``: who gets the packet.
    ``reason``: of ``DROP_REASONS``; "none" when it is forwarded. ``events``: what it counts.
    ``sent``: frames by TX ring.
    """

    generation: int
    key: bytes
    hash: int
    service: int | None
    table_size: int
    bucket: int
    table_backend: int | None
    backend: int | None
    reason: str
    events: tuple[str, ...]
    sightings: tuple[Sighting, ...]
    sent: tuple[tuple[int, bytes], ...]


class _Rehearsal(Worker):
    """A worker that changes nothing but its own memory."""

    _create = staticmethod(lib.lbfwd_rehearsal_new)

    def explain(self, frame: bytes, now_ms: int) -> Any:
        """Take the one frame through the packet path."""
        out = ffi.new("struct lbfwd_explanation *")
        data = bytes(VNET_BYTES) + frame
        result = lib.lbfwd_worker_explain(self._worker, data, len(data), now_ms, out)
        self._check("explain", result)
        return out


def explain(
    files: Sequence[int], slot: int, rings: Collection[int], frame: bytes, now_ms: int
) -> Explanation:
    """Tell what the worker of a slot would do with an Ethernet frame.

    ``files``: ``Tables.files``; ``rings``: TX rings that are open; ``now_ms``: CLOCK_MONOTONIC.
    Blocks; call it where ``Tables`` is used, so that no generation is taken away meanwhile. Raises
    OSError.
    """
    rehearsal = _Rehearsal(slot, *files)
    try:
        for ring in rings:
            rehearsal.add_tx(ring, -1, tx_geometry(_TX_FRAMES, _LARGEST_MTU))
        out = rehearsal.explain(frame, now_ms)
        sent = tuple((ring, data) for ring in rings for data in rehearsal.sent(ring))
    finally:
        rehearsal.close()
    return _explanation(out, sent)


def _explanation(out: Any, sent: tuple[tuple[int, bytes], ...]) -> Explanation:
    return Explanation(
        generation=out.generation,
        key=bytes(ffi.buffer(out.key, out.key_length)),
        hash=out.hash,
        service=out.service if out.service < lib.LBFWD_MAX_SERVICES else None,
        table_size=out.table_size,
        bucket=out.bucket,
        table_backend=_backend(out.table_backend),
        backend=_backend(out.backend),
        reason="none" if not out.reason else DROP_REASONS[out.reason],
        events=tuple(name for number, name in enumerate(EVENTS) if out.events[number]),
        sightings=tuple(_sightings(out)),
        sent=sent,
    )


def _backend(slot: int) -> int | None:
    return slot if slot < lib.LBFWD_MAX_BACKENDS else None


def _sightings(out: Any) -> list[Sighting]:
    return [
        Sighting(
            worker=worker,
            backend=row.backend,
            incarnation=row.incarnation,
            state=_STATES[row.state],
            age_s=row.age_s,
            bucket=row.bucket,
            usable=bool(row.usable),
        )
        for worker, row in enumerate(out.workers)
        if row.bucket
    ]
