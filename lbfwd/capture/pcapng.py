"""Blocks of a pcapng file (draft-ietf-opsawg-pcapng), little-endian, as bytes. Pure."""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

ETHERNET = 1  # LINKTYPE_ETHERNET
INBOUND, OUTBOUND = 1, 2  # bits 0-1 of epb_flags
UNICAST, MULTICAST, BROADCAST, PROMISCUOUS = 1 << 2, 2 << 2, 3 << 2, 4 << 2  # bits 2-4

_SECTION, _INTERFACE, _STATISTICS, _PACKET = 0x0A0D0D0A, 1, 5, 6
_BYTE_ORDER = 0x1A2B3C4D
_UNKNOWN_LENGTH = 0xFFFFFFFFFFFFFFFF
_COMMENT, _OS, _APPLICATION = 1, 3, 4
_NAME, _RESOLUTION = 2, 9
_FLAGS = 2
_RECEIVED, _DROPPED = 4, 5  # isb_ifrecv, isb_ifdrop
_NANOSECONDS = bytes([9])  # if_tsresol: 10^-9 s

Option = tuple[int, bytes]


@dataclass(frozen=True)
class Packet:
    """One packet: ``data`` is what was kept of ``length`` bytes on the wire.

    ``interface``: its number among the file's interfaces; ``time_ns`` since 1970 (UTC).
    """

    interface: int
    time_ns: int
    length: int
    data: bytes
    flags: int
    comment: str


def section(application: str, system: str, comment: str) -> bytes:
    """Return the header that a file begins with."""
    head = struct.pack("<IHHQ", _BYTE_ORDER, 1, 0, _UNKNOWN_LENGTH)
    options = _texts((_COMMENT, comment), (_OS, system), (_APPLICATION, application))
    return _block(_SECTION, head, options)


def interface(name: str, snaplen: int) -> bytes:
    """Return the description of an Ethernet interface; they are numbered in order, from 0."""
    options = [*_texts((_NAME, name)), (_RESOLUTION, _NANOSECONDS)]
    return _block(_INTERFACE, struct.pack("<HHI", ETHERNET, 0, snaplen), options)


def packet(found: Packet) -> bytes:
    """Return an enhanced packet block."""
    high, low = divmod(found.time_ns, 1 << 32)
    kept = len(found.data)
    head = struct.pack("<IIIII", found.interface, high, low, kept, found.length)
    options = [*_texts((_COMMENT, found.comment)), (_FLAGS, struct.pack("<I", found.flags))]
    return _block(_PACKET, head + _padded(found.data), options)


def statistics(number: int, time_ns: int, received: int, dropped: int) -> bytes:
    """Return how many packets an interface's filter admitted, and how many of them were lost."""
    head = struct.pack("<III", number, *divmod(time_ns, 1 << 32))
    counts = [(_RECEIVED, struct.pack("<Q", received)), (_DROPPED, struct.pack("<Q", dropped))]
    return _block(_STATISTICS, head, counts)


def _texts(*options: tuple[int, str]) -> list[Option]:
    """Return the options whose text is not empty."""
    return [(code, text.encode()) for code, text in options if text]


def _block(kind: int, head: bytes, options: Sequence[Option]) -> bytes:
    body = head + _options(options)
    total = len(body) + 12
    return struct.pack("<II", kind, total) + body + struct.pack("<I", total)


def _options(options: Iterable[Option]) -> bytes:
    found = [struct.pack("<HH", code, len(value)) + _padded(value) for code, value in options]
    return b"".join([*found, bytes(4)])  # opt_endofopt


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
