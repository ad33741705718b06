"""The probe tunnel while it is open: device, packet socket, and the thread that wraps and sends."""

import os
import socket
import threading
from contextlib import ExitStack

from lbfwd import ring
from lbfwd.health import tunnel_device, tunnel_filter
from lbfwd.health.tunnel_error import TunnelError
from lbfwd.health.tunnel_way import Way
from lbfwd.supervisor import log


class Pump:
    """Takes probes out of the TUN device and sends them as the workers send clients' packets."""

    def __init__(self) -> None:
        """Set device, routing and thread up. Blocks. Raises TunnelError; ``sweep`` afterwards."""
        self._wrapper = ring.ProbePump()
        self.failure = ""
        with ExitStack() as undo:
            tun = tunnel_device.open_device()
            undo.callback(os.close, tun)
            packets = undo.enter_context(_packet_socket())
            wake = os.eventfd(0, os.EFD_CLOEXEC)
            undo.callback(os.close, wake)
            thread = threading.Thread(
                target=self._run,
                args=(tun, packets.fileno(), wake),
                name="lbfwd-probe",
                daemon=True,  # a supervisor that crashes must not hang at its end
            )
            thread.start()
            undo.callback(thread.join)
            undo.callback(os.eventfd_write, wake, 1)
            self._undo = undo.pop_all()

    def close(self) -> None:
        """Stop the thread and take the device away, which its routes go with. Blocks."""
        self._undo.close()

    def aim(self, name: int, way: Way) -> None:
        """Send packets of this name this way from now on."""
        self._wrapper.aim(name, way.path, way.ifindex)

    def counters(self) -> ring.ProbeCounters:
        """Return what was sent, and what was not."""
        return self._wrapper.counters()

    def _run(self, tun: int, packets: int, wake: int) -> None:
        try:
            self._wrapper.run(tun, packets, wake)
        except OSError as error:
            self.failure = error.strerror or str(error)


def _packet_socket() -> socket.socket:
    try:  # protocol 0: it receives nothing
        return socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    except OSError as error:
        raise TunnelError(f"packet socket for probes: {error.strerror}") from error


def sweep() -> None:
    """Remove rules, routes and filter, a predecessor's too, unless a tunnel is open. Blocks."""
    if tunnel_device.is_there():
        return
    for remove in (tunnel_device.remove_routing, tunnel_filter.remove):
        try:
            remove()
        except TunnelError as error:
            log.get().error("probe_tunnel_remains", reason=str(error))
