"""Decapsulation: a GRE device a family where the kernel has one, else raw sockets into TUN."""

import os
import socket
import struct
import threading
from collections.abc import Callable, Collection
from contextlib import ExitStack

import structlog

from lbfwd import ring
from lbfwd.backend.kernel import FAMILIES, Kernel
from lbfwd.backend.plan import GRE_DEVICES, GRE_KINDS, TUN_DEVICE
from lbfwd.backend.request import BackendError
from lbfwd.net import tun

# Room for bursts while the pump hands packets to the kernel.
RECEIVE_BUFFER_BYTES = 16 << 20
SO_RCVBUFFORCE = 33
SO_MEMINFO = 55
MEMINFO_BYTES = 36
MEMINFO_DROPS = 8  # SK_MEMINFO_DROPS: the word that counts what found no room

log = structlog.get_logger()


class Decapsulator:
    """Owns the tunnel devices and the pump between raw sockets and TUN, where one is needed."""

    def __init__(self, kernel: Kernel, families: Collection[int], mtu: int) -> None:
        """``families``: IP versions of the nodes; ``mtu``: largest inner packet in bytes."""
        self._kernel = kernel
        self._families = tuple(families)
        self._mtu = mtu
        self._raw: dict[int, socket.socket] = {}
        self._tun = -1
        self._undo = ExitStack()
        self.counters = ring.DecapCounters()
        self.devices: tuple[str, ...] = ()
        self.failed = False

    def open(self) -> None:
        """Make the devices; nothing is unwrapped in user space before ``start``."""
        for family in self._families:
            device = GRE_DEVICES[family]
            if self._kernel.add_gre(device, GRE_KINDS[family]):
                self._undo.callback(self._kernel.remove_device, device)
                self.devices += (device,)
            else:
                self._raw[family] = self._undo.enter_context(_raw_socket(family))
        if self._raw:
            self._tun = _open_tun()
            self._undo.callback(os.close, self._tun)
            self.devices += (TUN_DEVICE,)

    def bring_up(self) -> None:
        """Bring the devices up; their sysctls are to be set before."""
        for device in self.devices:
            self._kernel.bring_up(device, self._mtu)

    def keep_up(self) -> None:
        """Bring up again what others took down. Raises BackendError when a device is gone."""
        for device in self.devices:
            if not self._kernel.is_up(device):
                log.warning("tunnel_device_restored", device=device, reason="somebody took it down")
                self._kernel.bring_up(device, self._mtu)

    def start(self, ended: Callable[[], None]) -> None:
        """Start the pump, if there is one to start; ``ended`` is called if it fails later."""
        if not self._raw:
            return
        wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._undo.callback(os.close, wake)
        pump = threading.Thread(target=self._run, args=(wake, ended), name="decap")
        pump.start()
        self._undo.callback(pump.join)
        self._undo.callback(os.eventfd_write, wake, 1)

    def close(self) -> None:
        """Stop the pump and remove the devices."""
        self._undo.close()

    @property
    def way(self) -> str:
        """Who unwraps: ``kernel``, ``user space`` or both, by family."""
        ways = {f: "user space" if f in self._raw else "kernel" for f in self._families}
        return ", ".join(f"IPv{family}: {way}" for family, way in ways.items())

    def totals(self) -> dict[str, int]:
        """Return what user space unwrapped since the start, and what it lost."""
        counters = self.counters
        return {"packets": counters.packets, "bytes": counters.bytes, **self.losses()}

    def losses(self) -> dict[str, int]:
        """Return how many packets did not get through the pump, by reason, since the start."""
        return {
            "malformed": self.counters.malformed,
            "refused": self.counters.refused,
            "no_room": sum(_dropped(raw) for raw in self._raw.values()),
        }

    def _run(self, wake: int, ended: Callable[[], None]) -> None:
        fds = [self._raw[f].fileno() if f in self._raw else -1 for f in FAMILIES]
        try:
            ring.decap(fds[0], fds[1], self._tun, wake, self.counters)
        except OSError as error:
            log.error("decapsulation_failed", reason=str(error))
            self.failed = True
            ended()


def _raw_socket(family: int) -> socket.socket:
    """Open a raw GRE socket for IPv4 (4) or IPv6 (6). Raises BackendError."""
    try:
        raw = socket.socket(FAMILIES[family], socket.SOCK_RAW, socket.IPPROTO_GRE)
    except PermissionError as error:
        raise BackendError("raw GRE socket: CAP_NET_RAW is missing: run as root") from error
    except OSError as error:
        raise BackendError(f"raw IPv{family} GRE socket: {error.strerror}") from error
    try:
        raw.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
    except PermissionError:  # root of a user namespace only: net.core.rmem_max is the limit
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    return raw


def _dropped(raw: socket.socket) -> int:
    meminfo = raw.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, MEMINFO_BYTES)
    dropped: int = struct.unpack(f"{len(meminfo) // 4}I", meminfo)[MEMINFO_DROPS]
    return dropped


def _open_tun() -> int:
    """Make the TUN device, which goes with its descriptor. Raises BackendError."""
    try:
        return tun.open_tun(TUN_DEVICE)
    except tun.NoTun as error:
        raise BackendError(
            f"{error}: this kernel has no GRE device, and unwrapping in user space needs TUN"
        ) from error
    except tun.TunError as error:
        raise BackendError(str(error)) from error
