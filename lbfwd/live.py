"""Marked packets: how one is made, how workers are told to look for it, how it went.

docs/trace.md says what such a packet is; ``_live.h`` finds it.
"""

import errno
import mmap
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from lbfwd._ringlib import ffi, lib
from lbfwd.flow import Flow, packet
from lbfwd.ring import DROP_REASONS
from lbfwd.shared import CONTROL_BYTES

MAGIC: bytes = int(lib.LBFWD_MARK_MAGIC).to_bytes(8, "little")
TOKEN_BYTES: int = lib.LBFWD_MARK_BYTES - len(MAGIC)
_ETHERNET_BYTES = 14
_TRANSPORT_AT = {4: 20, 6: 40}
_CHECKSUM_AT = {"tcp": 16, "udp": 6, "icmp": 2}


def marked(flow: Flow, token: bytes) -> bytes:
    """Return an IP packet of the flow with a token of TOKEN_BYTES, and a wrong checksum.

    Whoever it is for drops it (RFC 9293 section 3.1, RFC 1122 sections 4.1.3.4 and 3.2.2).
    """
    if len(token) != TOKEN_BYTES:
        raise ValueError(f"a token of {len(token)} bytes: must be {TOKEN_BYTES}")
    data = packet(flow, MAGIC + token)[_ETHERNET_BYTES:]
    at = _TRANSPORT_AT[flow.source.version] + _CHECKSUM_AT[flow.protocol]
    right = int.from_bytes(data[at : at + 2], "big")
    # 0 would be no checksum in UDP (RFC 768), and 0xffff the same as 0 elsewhere.
    wrong = right ^ 0x5A5A or 0xA5A5
    return data[:at] + wrong.to_bytes(2, "big") + data[at + 2 :]


@dataclass(frozen=True)
class Found:
    """How a marked packet went. Services and backends are slots; None: none.

    ``at_ms``: CLOCK_MONOTONIC. ``reason``: of ``DROP_REASONS``; "none" when it is forwarded.
    ``rx``, ``tx``: rings; ``known``: an entry of a flow table named the backend.
    """

    worker: int
    generation: int
    at_ms: int
    service: int | None
    backend: int | None
    incarnation: int
    reason: str
    rx: int
    tx: int | None
    known: bool


class Marks:
    """The words of the control file that arm workers, and their records."""

    def __init__(self, control_fd: int, workers: int) -> None:
        """Map the control file of ``Tables.files``. Raises OSError."""
        self._stack = ExitStack()
        memory = self._stack.enter_context(mmap.mmap(control_fd, CONTROL_BYTES))
        view = ffi.from_buffer("struct lbfwd_control *", memory, require_writable=True)
        self._stack.callback(ffi.release, view)
        self._control = view
        self._slots = range(workers)

    def arm(self, token: bytes, until_ms: int) -> None:
        """Have workers look for the token until then (CLOCK_MONOTONIC)."""
        lib.lbfwd_live_arm(self._control, token, until_ms)

    def disarm(self) -> None:
        """Have workers look for nothing."""
        lib.lbfwd_live_arm(self._control, bytes(TOKEN_BYTES), 0)

    def find(self, token: bytes) -> Found | None:
        """Return how the packet with this token went, once a worker has found it."""
        row = ffi.new("struct lbfwd_live *")
        for slot in self._slots:
            result = lib.lbfwd_live_read(self._control, slot, row)
            if result not in (0, -errno.ENOENT, -errno.EAGAIN):
                raise OSError(-result, f"read the record of worker {slot} failed")
            if result == 0 and bytes(ffi.buffer(row.token)) == token:
                return _found(slot, row)
        return None

    def close(self) -> None:
        """Unmap."""
        self._stack.close()


def _found(slot: int, row: Any) -> Found:
    return Found(
        worker=slot,
        generation=row.generation,
        at_ms=row.at_ms,
        service=_below(row.service, lib.LBFWD_MAX_SERVICES),
        backend=_below(row.backend, lib.LBFWD_MAX_BACKENDS),
        incarnation=row.incarnation,
        reason=DROP_REASONS[row.reason],
        rx=row.rx,
        tx=_below(row.tx, lib.LBFWD_MAX_TX),
        known=bool(row.known),
    )


def _below(number: int, limit: int) -> int | None:
    return number if number < limit else None
