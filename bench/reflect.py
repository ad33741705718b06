"""The reflector: ``python -m bench.reflect PROGRAM IN OUT NEXT_HOP_MAC [options]``.

Opens the rings as the supervisor does for a worker (same geometry, options, filter, order), then
becomes the program built from reflect.c. Runs in the node's namespace; prints "ready" when it
forwards.
"""

import argparse
import os
import socket
from ipaddress import ip_address
from pathlib import Path

from bench.frames import VIPS
from bench.rings import Rings
from bench.stage import BACKENDS, NODE
from lbfwd.encap import outer_header
from lbfwd.net.bpf import encode
from lbfwd.net.fanout import fanout_program
from lbfwd.net.filter import vip_filter
from lbfwd.ring import Geometry, RxSocket, TxSocket, rx_geometry, tx_geometry


def header(interface: str, next_hop: str) -> bytes:
    """Return the 38 bytes in front of every packet: to the first backend."""
    own = Path(f"/sys/class/net/{interface}/address").read_text(encoding="ascii")
    to, source = (bytes.fromhex(mac.strip().replace(":", "")) for mac in (next_hop, own))
    return outer_header(to, source, ip_address(NODE), ip_address(BACKENDS[0]))


def mtu(interface: str) -> int:
    """Return an interface's MTU."""
    return int(Path(f"/sys/class/net/{interface}/mtu").read_text(encoding="ascii"))


def open_rx(interface: str, rings: Rings) -> RxSocket:
    """Open the RX ring: its fanout group has one member."""
    geometry = rx_geometry(
        rings.ring, rings.rx_ring_mib, rings.rx_block_kib, rings.rx_retire_ms, mtu(interface)
    )
    rx = RxSocket.open(interface, socket.if_nametoindex(interface), geometry)
    rx.join(None)
    rx.set_fanout(encode(fanout_program("hash", [0], [0])))
    rx.set_filter(encode(vip_filter(VIPS.values())))
    return rx


def open_tx(interface: str, rings: Rings) -> TxSocket:
    """Open the TX ring."""
    geometry = tx_geometry(rings.tx_ring_frames, mtu(interface))
    return TxSocket.open(interface, socket.if_nametoindex(interface), geometry, rings.qdisc_bypass)


def numbers(geometry: Geometry) -> str:
    """Return a geometry as reflect.c reads it."""
    fields = geometry.version, geometry.block_bytes, geometry.blocks, geometry.frame_bytes
    return ",".join(str(number) for number in (*fields, geometry.retire_ms))


def main() -> None:
    """Open the rings and become the program."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("program", "interface", "output", "next_hop"):
        parser.add_argument(name)
    parser.add_argument("--mode", choices=("linear", "plain"), default="linear")
    parser.add_argument("--cpu", type=int, required=True)
    parser.add_argument("--rings", type=Rings.parse, default=Rings())
    chosen = parser.parse_args()
    os.sched_setaffinity(0, {chosen.cpu})
    rx, tx = open_rx(chosen.interface, chosen.rings), open_tx(chosen.output, chosen.rings)
    for ring in (rx, tx):
        os.set_inheritable(ring.fd, True)
    arguments = [chosen.mode, header(chosen.output, chosen.next_hop).hex()]
    arguments += [str(chosen.rings.busy_poll_us), str(rx.fd), numbers(rx.geometry)]
    arguments += [str(tx.fd), numbers(tx.geometry)]
    os.execv(chosen.program, [chosen.program, *arguments])


if __name__ == "__main__":
    main()
