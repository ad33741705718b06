"""A packet socket on one interface: what it received, and what it sent (packet(7))."""

import errno
import os
import socket
import struct
from dataclasses import dataclass

from lbfwd.capture.packet import VLAN_BYTES
from lbfwd.capture.pcapng import (
    BROADCAST,
    INBOUND,
    MULTICAST,
    OUTBOUND,
    PROMISCUOUS,
    UNICAST,
)
from lbfwd.capture.selection import CaptureError
from lbfwd.net import bpf
from lbfwd.net.bpf import Program
from lbfwd.net.filter import DROP_ALL

ETH_P_ALL = 3
SOL_PACKET = 263
PACKET_STATISTICS, PACKET_AUXDATA = 6, 8
SO_RCVBUFFORCE, SO_TIMESTAMPNS = 33, 35
# What may wait for us: when it is full, the kernel passes packets over without copying them.
BUFFER_BYTES = 8 << 20
LARGEST = 1 << 18  # a super-frame

_TIMESPEC = struct.Struct("@qq")
# struct tpacket_auxdata: status, len, snaplen, mac, net, vlan_tci, vlan_tpid
_AUXDATA = struct.Struct("@IIIHHHH")
_STATISTICS = struct.Struct("@II")
_ANCILLARY_BYTES = socket.CMSG_SPACE(_TIMESPEC.size) + socket.CMSG_SPACE(_AUXDATA.size)
_UNFINISHED, _VLAN, _VLAN_TPID = 1 << 3, 1 << 4, 1 << 6  # TP_STATUS_CSUMNOTREADY, …_VALID
_DOT1Q = 0x8100
_OUTGOING = 4
_FLAGS = {
    0: INBOUND | UNICAST,
    1: INBOUND | BROADCAST,
    2: INBOUND | MULTICAST,
    3: INBOUND | PROMISCUOUS,
    _OUTGOING: OUTBOUND,
}


@dataclass(frozen=True)
class Frame:
    """A frame as it was on the wire, VLAN tag included; ``data`` may be cut, ``length`` is not.

    ``flags``: of pcapng. ``unfinished``: its checksum is left to hardware.
    """

    interface: int
    time_ns: int
    length: int
    data: bytes
    flags: int
    unfinished: bool

    @property
    def sent(self) -> bool:
        """It left here; else it came in."""
        return self.flags == OUTBOUND


class Tap:
    """One interface; ``number`` is its place in the file."""

    def __init__(self, number: int, name: str, program: Program) -> None:
        """Begin to receive. Raises CaptureError."""
        self.number = number
        self.name = name
        self.received = self.dropped = 0
        self.retired = False
        try:
            # Protocol 0 receives nothing: no packet passes before the filter is there.
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        except PermissionError:
            raise CaptureError("packet socket: CAP_NET_RAW is missing: run as root") from None
        try:
            self._set_up(program)
        except OSError as error:
            self._socket.close()
            raise CaptureError(f"capture on {name}: {_reason(error)}") from error

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._socket.fileno()

    def read(self) -> Frame | None:
        """Return the next frame, or None when there is none now. Raises CaptureError."""
        try:
            data, ancillary, _flags, address = self._socket.recvmsg(LARGEST, _ANCILLARY_BYTES)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno == errno.ENETDOWN:  # told once, when the link goes down
                return None
            raise CaptureError(f"capture on {self.name}: {_reason(error)}") from error
        return self._frame(data, {(level, kind): raw for level, kind, raw in ancillary}, address[2])

    def count(self) -> None:
        """Take over what the kernel has counted since the last time."""
        if self._socket.fileno() < 0:
            return
        raw = self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, _STATISTICS.size)
        received, dropped = _STATISTICS.unpack(raw)
        self.received += received
        self.dropped += dropped

    def admit(self, program: Program) -> None:
        """Receive by another program from now on. Raises CaptureError."""
        try:
            bpf.attach(self._socket, program)
        except OSError as error:
            raise CaptureError(f"capture on {self.name}: {_reason(error)}") from error

    def retire(self) -> None:
        """Receive nothing more; what has come can be read. Raises CaptureError."""
        self.retired = True
        self.admit(DROP_ALL)

    def close(self) -> None:
        """Receive nothing more, and forget what was not read."""
        self.count()
        self._socket.close()

    def _set_up(self, program: Program) -> None:
        self._socket.setblocking(False)
        bpf.attach(self._socket, program)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._socket.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
        except PermissionError:  # CAP_NET_RAW alone: net.core.rmem_max is the limit
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        self._socket.bind((self.name, ETH_P_ALL))

    def _frame(self, data: bytes, ancillary: dict[tuple[int, int], bytes], kind: int) -> Frame:
        seconds, nanoseconds = _TIMESPEC.unpack(ancillary[socket.SOL_SOCKET, SO_TIMESTAMPNS])
        status, length, _kept, _mac, _net, tci, tpid = _AUXDATA.unpack(
            ancillary[SOL_PACKET, PACKET_AUXDATA]
        )
        if status & _VLAN:  # the kernel takes the tag out
            ethertype = tpid if status & _VLAN_TPID else _DOT1Q
            data = data[:12] + struct.pack("!HH", ethertype, tci) + data[12:]
            length += VLAN_BYTES
        return Frame(
            interface=self.number,
            time_ns=seconds * 1_000_000_000 + nanoseconds,
            length=length,
            data=data,
            flags=_FLAGS.get(kind, INBOUND),
            unfinished=bool(status & _UNFINISHED),
        )


def _reason(error: OSError) -> str:
    if error.errno == errno.ENODEV:
        return "no such interface"
    return os.strerror(error.errno) if error.errno else str(error)
