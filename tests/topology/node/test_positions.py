"""A saved position belongs to one ring: a worker that died may not mislead another ring's."""

import sys
from pathlib import Path

import pytest

from lbfwd.demo.lab import Lab

pytestmark = pytest.mark.topology

SCRIPT = """
import os, socket, struct, sys, time
from ipaddress import ip_address as ip
from pathlib import Path
from lbfwd import ring
from lbfwd.forwarding import Forwarding, Member, PathSpec, PoolState, ServiceState
from lbfwd.tables import Tables

version, directory = sys.argv[1:]
mac = bytes(6)
path = PathSpec(mac, mac, ip("10.0.0.1"), ip("10.0.0.2"), 0, 1500)
tables = Tables.create(Path(directory), 1, 1024)
tables.publish(Forwarding(
    bytes(16), (ServiceState("s", ip("192.0.2.10"), "udp", 0, "5-tuple", "p"),),
    (PoolState("p", 251, (Member("b", ip("10.0.0.2"), 1, (path,)),)),)))
ret = lambda value: struct.pack("HBBI", 6, 0, 0, value)
sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
sender.bind(("out", 0))
frame = bytes.fromhex(sys.stdin.read())
wake = os.pipe()[0]
forwarded = lambda: tables.totals().services["s"].packets

def serve(packets):
    geometry = ring.rx_geometry(version, 1, 128, 1)
    rx = ring.RxSocket.open("in", socket.if_nametoindex("in"), geometry)
    rx.join(None)
    rx.set_fanout(ret(0))
    rx.set_filter(ret(0x40000))
    worker = ring.Worker(0, *tables.files())
    worker.add_tx(0, -1, ring.tx_geometry(4096, 1500))
    worker.add_rx(0, rx.fd, geometry)
    before, end, sent = forwarded(), time.monotonic() + 10, 0
    for _ in range(packets):
        sender.send(frame)
    while sent < packets and time.monotonic() < end:
        worker.run(wake, 0)
        sent += len(worker.sent(0))
    rx.close()  # the worker is left as if it had been killed: it removes nothing
    return sent

assert serve(100) == 100
assert serve(50) == 50, "the second ring is read from its beginning"
"""


@pytest.mark.parametrize("version", ["v3", "v2"])
def test_another_ring_at_the_same_index_is_read_from_its_beginning(
    tmp_path: Path, version: str
) -> None:
    from scapy.layers.inet import IP, UDP
    from scapy.layers.l2 import Ether

    with Lab() as lab:
        host = lab.host("rings")
        host.run("ip", "link", "add", "out", "type", "veth", "peer", "name", "in")
        mac = "02:00:00:00:00:99"
        host.run("ip", "link", "set", "in", "address", mac)
        for name in ("in", "out"):
            host.run("ip", "link", "set", name, "up")
        frame = bytes(
            Ether(dst=mac) / IP(src="198.51.100.2", dst="192.0.2.10") / UDP(dport=9) / b"x"
        )
        host.run(sys.executable, "-c", SCRIPT, version, str(tmp_path), stdin=frame.hex())
