"""Rings, workers, hashes and decapsulation for Python (``shared`` has the memory layouts).

Every C function that returns -errno becomes an OSError here, which names the operation and the
interface. Kernel document: Documentation/networking/packet_mmap.rst; the order of set-up is in
docs/architecture.md.
"""

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Self

from lbfwd._ringlib import ffi, lib

MAX_RX: int = lib.LBFWD_MAX_RX
MAX_TX: int = lib.LBFWD_MAX_TX
MAX_WORKERS: int = lib.LBFWD_MAX_WORKERS
MAX_SERVICES: int = lib.LBFWD_MAX_SERVICES
MAX_BACKENDS: int = lib.LBFWD_MAX_BACKENDS
BURST: int = lib.LBFWD_BURST
VNET_BYTES = 10  # virtio_net_hdr in front of a frame in memory


def _names(enum: str, count: int) -> tuple[str, ...]:
    """Return the names of a C enum by their numbers, without their prefix, in lower case."""
    elements: dict[int, str] = ffi.typeof(f"enum lbfwd_{enum}").elements
    prefix = f"LBFWD_{enum.upper()}_"
    return tuple(elements[number].removeprefix(prefix).lower() for number in range(count))


# Names of the drop reasons by their number; number 0 is "none" and never counted.
DROP_REASONS: tuple[str, ...] = _names("drop", lib.LBFWD_DROP_COUNT)
# Names of what happens on a packet's way, beside where it ends.
EVENTS: tuple[str, ...] = _names("event", lib.LBFWD_EVENT_COUNT)

WAKE_CONTROL: int = lib.LBFWD_WAKE_CONTROL

_DROP_ALL = (0x06).to_bytes(2, "little") + bytes(6)  # BPF_RET | BPF_K, k = 0
_ANSWER_MTU = 1280  # ICMPv6 errors quote as much as fits into this (RFC 4443)
_FRAME_OVERHEAD = 256  # ring headers, address, offload header, Ethernet header and tags
_ROUGH_SKB_BYTES = 2048  # what the kernel adds to a frame when it accounts it to the socket


@dataclass(frozen=True)
class Geometry:
    """Shape of a ring, as ``struct lbfwd_geometry``. Sizes in bytes, time in milliseconds."""

    version: int
    block_bytes: int
    blocks: int
    frame_bytes: int
    retire_ms: int = 0


@dataclass(frozen=True)
class RingStatistics:
    """What an RX ring took and dropped, and how often it froze, since the last read."""

    packets: int
    drops: int
    freezes: int


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()


def rx_geometry(
    ring: str, ring_mib: int, block_kib: int, retire_ms: int, mtu: int = 1500
) -> Geometry:
    """Return the shape of an RX ring of ``ring_mib`` MiB.

    A V2 ring's slots hold a frame of the interface's MTU; larger ones (super-frames) come through
    the socket's queue. A V3 ring's blocks hold frames of any size.
    """
    total = ring_mib << 20
    block = block_kib << 10
    if ring == "v3":
        return Geometry(3, block, total // block, 2048, retire_ms)
    frame = _power_of_two(mtu + _FRAME_OVERHEAD)
    block = max(block, frame)
    return Geometry(2, block, max(1, total // block), frame)


def tx_geometry(frames: int, mtu: int) -> Geometry:
    """Return the shape of a TX ring with ``frames`` slots for frames of an interface's MTU.

    A slot has room for the node's own answers too, which are up to 1280 bytes of IP.
    """
    frame = _power_of_two(max(mtu, _ANSWER_MTU) + _FRAME_OVERHEAD)
    block = min(max(frame, 1 << 18), frame * frames)
    return Geometry(3, block, frames * frame // block, frame)


def _geometry(geometry: Geometry) -> Any:
    return ffi.new("struct lbfwd_geometry *", asdict(geometry))


class _PacketSocket:
    """A packet socket of one interface; subclasses say which ring it has."""

    def __init__(self, ifname: str, ifindex: int, geometry: Geometry) -> None:
        self.ifname = ifname
        self.ifindex = ifindex
        self.geometry = geometry
        self.fd = self._do("open a packet socket", lib.lbfwd_packet_socket)

    def _do(self, operation: str, function: Callable[..., int], *arguments: Any) -> int:
        result = function(*arguments)
        if result < 0:
            raise OSError(-result, f"{self.ifname}: {operation}: {os.strerror(-result)}")
        return result

    def _program(self, operation: str, function: Callable[..., int], program: bytes) -> None:
        instructions = ffi.from_buffer("uint64_t[]", program)
        self._do(operation, function, self.fd, instructions, len(instructions))

    def statistics(self) -> RingStatistics:
        """Read and reset the kernel's statistics of this socket."""
        out = ffi.new("struct lbfwd_ring_statistics *")
        self._do("read statistics", lib.lbfwd_statistics, self.fd, out)
        return RingStatistics(out.packets, out.drops, out.freezes)

    def close(self) -> None:
        """Close the descriptor; the ring lives on while a worker maps it. Idempotent."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_rest: object) -> None:
        """Close when a step of the set-up failed; an open socket is the caller's."""
        if kind is not None:
            self.close()


class RxSocket(_PacketSocket):
    """A socket with an RX ring, bound to all protocols of one interface.

    After ``open`` it admits nothing: join the fanout group, and give it its filter last.
    """

    @classmethod
    def open(cls, ifname: str, ifindex: int, geometry: Geometry) -> Self:
        """Open and bind; OSError names the step that failed."""
        with cls(ifname, ifindex, geometry) as self:
            self.set_filter(_DROP_ALL)
            self._do("set ring options", lib.lbfwd_rx_options, self.fd, geometry.version)
            self._do("set up the RX ring", lib.lbfwd_rx_ring, self.fd, _geometry(geometry))
            self._do("bind", lib.lbfwd_bind, self.fd, ifindex, 1)
            return self

    def join(self, group: int | None) -> int:
        """Join a fanout group, or found one; returns its number."""
        return self._do(
            "join the fanout group", lib.lbfwd_fanout_join, self.fd, -1 if group is None else group
        )

    def set_fanout(self, program: bytes) -> None:
        """Set the whole group's program (struct sock_filter[]), which returns a member's number."""
        self._program("set the fanout program", lib.lbfwd_fanout_program, program)

    def set_filter(self, program: bytes) -> None:
        """Set the socket's filter (struct sock_filter[]). ENOMEM: larger than optmem_max allows."""
        self._program("attach the socket filter", lib.lbfwd_attach_filter, program)


class TxSocket(_PacketSocket):
    """A socket with a TX ring on one output interface. It receives nothing."""

    @classmethod
    def open(cls, ifname: str, ifindex: int, geometry: Geometry, qdisc_bypass: bool) -> Self:
        """Open and bind; OSError names the step that failed."""
        frames = geometry.block_bytes * geometry.blocks // geometry.frame_bytes
        wanted = min(frames * (geometry.frame_bytes + _ROUGH_SKB_BYTES), 2**30)
        with cls(ifname, ifindex, geometry) as self:
            self._do("set ring options", lib.lbfwd_tx_options, self.fd, int(qdisc_bypass))
            self._do("set up the TX ring", lib.lbfwd_tx_ring, self.fd, _geometry(geometry))
            self._do("bind", lib.lbfwd_bind, self.fd, ifindex, 0)
            self._do("set the send buffer", lib.lbfwd_send_buffer, self.fd, wanted)
            return self


class Worker:
    """The C worker: borrows rings and forwards. Used by ``lbfwd.workers`` and by tests."""

    _create = staticmethod(lib.lbfwd_worker_new)

    def __init__(self, slot: int, *files: int) -> None:
        """Map the shared files (``Tables.files``); OSError when they are not what they should."""
        out = ffi.new("struct lbfwd_worker **")
        self._check(
            "map the shared state",
            self._create(out, slot, *files),
        )
        self._worker = out[0]

    @staticmethod
    def _check(operation: str, result: int) -> int:
        if result < 0:
            raise OSError(-result, f"worker: {operation}: {os.strerror(-result)}")
        return result

    def add_rx(self, index: int, fd: int, geometry: Geometry) -> None:
        """Map an RX ring. The descriptor stays open while the ring is used."""
        result = lib.lbfwd_worker_add_rx(self._worker, index, fd, _geometry(geometry))
        self._check(f"map RX ring {index}", result)

    def remove_rx(self, index: int) -> None:
        """Forward what waits in the ring, then unmap it."""
        self._check(f"remove RX ring {index}", lib.lbfwd_worker_remove_rx(self._worker, index))

    def add_tx(self, index: int, fd: int, geometry: Geometry) -> None:
        """Map a TX ring and find the kernel's place in it; fd -1 makes one in memory (tests)."""
        result = lib.lbfwd_worker_add_tx(self._worker, index, fd, _geometry(geometry))
        self._check(f"map TX ring {index}", result)

    def remove_tx(self, index: int) -> None:
        """Hand over what is pending, count what is refused, unmap."""
        self._check(f"remove TX ring {index}", lib.lbfwd_worker_remove_tx(self._worker, index))

    def retire(self) -> None:
        """Count fragments that wait for their first as ``fragment_unmatched``: the end is near."""
        lib.lbfwd_worker_retire(self._worker)

    def recover(self) -> None:
        """Count what the slot's last worker had in its hands when it died."""
        self._check("recover", lib.lbfwd_worker_recover(self._worker))

    def run(self, wake_fd: int, busy_poll_us: int) -> int:
        """Forward until there is a reason to look at something else; returns a WAKE number."""
        return int(lib.lbfwd_worker_run(self._worker, wake_fd, busy_poll_us))

    def forward(
        self, frame: bytes, offload: bytes = bytes(VNET_BYTES), now_ms: int = 1_000_000
    ) -> None:
        """Take one frame from memory through the packet path, at a time given (tests)."""
        data = offload + frame
        self._check("forward", lib.lbfwd_worker_forward(self._worker, data, len(data), now_ms))

    def sent(self, index: int) -> list[bytes]:
        """Return and clear the frames that a TX ring in memory took (tests)."""
        frames: list[bytes] = []
        frame, length = ffi.new("uint8_t **"), ffi.new("uint32_t *")
        while lib.lbfwd_worker_sent(self._worker, index, len(frames), frame, length) == 0:
            frames.append(bytes(ffi.buffer(frame[0], length[0])))
        lib.lbfwd_worker_sent_clear(self._worker, index)
        return frames

    def close(self) -> None:
        """Unmap everything."""
        lib.lbfwd_worker_free(self._worker)


def drop_capabilities() -> None:
    """Give up every capability of this process, for good (capabilities(7), no_new_privs)."""
    result = lib.lbfwd_drop_capabilities()
    if result < 0:
        raise OSError(-result, f"drop capabilities: {os.strerror(-result)}")


def maglev_populate(table: Any, offsets: Any, skips: Any, weights: Any) -> None:
    """Fill ``table`` (a buffer of uint16_t) with indices into the backends. docs/architecture.md.

    offsets, skips, weights: buffers of uint32_t, one entry a backend, in ascending order of
    identity. Raises OSError (EINVAL) for an offset or skip outside the table, ValueError for
    buffers of different lengths.
    """
    columns = [ffi.from_buffer("uint32_t[]", column) for column in (offsets, skips, weights)]
    lengths = [len(column) for column in columns]
    if len(set(lengths)) != 1:  # C would read beyond the shorter ones
        raise ValueError(f"offsets, skips and weights have {lengths} entries: one a backend each")
    slots = ffi.from_buffer("uint16_t[]", table, require_writable=True)
    result = lib.lbfwd_maglev_populate(slots, len(slots), *columns, len(columns[0]))
    if result < 0:
        raise OSError(-result, f"populate a table of {len(slots)}: {os.strerror(-result)}")


def flow_hash(key: bytes, hash_key: bytes) -> int:
    """SipHash-1-3 of a flow key (13 or 37 bytes) under the 16-byte secret. docs/architecture.md."""
    return int(lib.lbfwd_flow_hash(key, len(key), ffi.from_buffer("uint64_t[2]", hash_key)))


def bucket(flow_hash: int, table_size: int) -> int:
    """Return the bucket of an affinity hash in a table of ``table_size``. docs/architecture.md."""
    return int(lib.lbfwd_bucket(flow_hash, table_size))


class DecapCounters:
    """Counters of a user-space decapsulator; they may be read while it runs."""

    def __init__(self) -> None:
        self.raw = ffi.new("struct lbfwd_decap_counters *")

    packets = property(lambda self: int(self.raw.packets))
    bytes = property(lambda self: int(self.raw.bytes))
    malformed = property(lambda self: int(self.raw.malformed))
    refused = property(lambda self: int(self.raw.refused))


def decap(raw4_fd: int, raw6_fd: int, tun_fd: int, wake_fd: int, counters: DecapCounters) -> None:
    """Unwrap GRE from raw sockets into a TUN device until ``wake_fd`` is readable.

    Blocks without holding the GIL. A raw descriptor of -1 is not used. OSError when a descriptor
    fails for good.
    """
    result = lib.lbfwd_decap_run(raw4_fd, raw6_fd, tun_fd, wake_fd, counters.raw)
    if result < 0:
        raise OSError(-result, f"decapsulate: {os.strerror(-result)}")


@dataclass(frozen=True)
class ProbeCounters:
    """What a probe pump did, as ``struct lbfwd_probe_counters``."""

    packets: int
    bytes: int
    stray: int
    too_big: int
    unsent: int


class ProbePump:
    """Wraps the packets of health probes that come out of a TUN device (``_probe.h``).

    ``aim`` and ``counters`` may be called while another thread is in ``run``.
    """

    def __init__(self) -> None:
        out = ffi.new("struct lbfwd_probe **")
        if lib.lbfwd_probe_new(out) < 0:
            raise MemoryError("no memory for the probe pump")
        self._raw = ffi.gc(out[0], lib.lbfwd_probe_free)

    def aim(self, name: int, path: bytes, ifindex: int) -> None:
        """Send packets of this name by this path from now on.

        ``name``: source port, or identifier of echo requests, below 65536. ``path``: one row of
        ``shared.pack_paths``.
        """
        row = ffi.from_buffer("struct lbfwd_path[]", path)
        if len(row) != 1:
            raise ValueError(f"{len(path)} bytes are not one path")
        lib.lbfwd_probe_aim(self._raw, name, row, ifindex)

    def wrap(self, packet: bytes) -> tuple[bytes, int] | None:
        """Return the outer header for an IP packet and its interface; None: it is not sent."""
        header, ifindex = ffi.new("uint8_t[]", lib.LBFWD_PATH_HEADER), ffi.new("int *")
        length = lib.lbfwd_probe_wrap(self._raw, packet, len(packet), header, ifindex)
        return (bytes(header[0:length]), ifindex[0]) if length else None

    def run(self, tun_fd: int, packet_fd: int, wake_fd: int) -> None:
        """Pump until ``wake_fd`` is readable. Blocks without holding the GIL.

        ``tun_fd`` is non-blocking. Raises OSError when it fails for good: the device is gone.
        """
        result = lib.lbfwd_probe_run(self._raw, tun_fd, packet_fd, wake_fd)
        if result < 0:
            raise OSError(-result, f"probe pump: {os.strerror(-result)}")

    def counters(self) -> ProbeCounters:
        """Return what was sent, and what was not, since the start."""
        out = ffi.new("struct lbfwd_probe_counters *")
        lib.lbfwd_probe_count(self._raw, out)
        return ProbeCounters(out.packets, out.bytes, out.stray, out.too_big, out.unsent)
