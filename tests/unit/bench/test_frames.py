"""The generator's template, judged by Scapy."""

import itertools
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from bench.frames import VIPS, Shape, frame

DESTINATION, SOURCE = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
SHAPES = [
    Shape(size, family, protocol)
    for size, family, protocol in itertools.product(
        (64, 512, 1500), (4, 6), ("udp", "tcp-syn", "tcp-ack")
    )
    if size > 64 or family == 4
]
FLAGS = {"tcp-syn": "S", "tcp-ack": "A"}


def rebuilt(packet: Any) -> bytes:
    """Scapy's own lengths and checksums."""
    again = packet.copy()
    for layer in (IP, IPv6, TCP, UDP):
        if layer in again:
            for field in ("len", "plen", "chksum"):
                if field in again[layer].fields:
                    delattr(again[layer], field)
    return bytes(again)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_template_is_what_it_says(shape: Shape) -> None:
    data = frame(shape, DESTINATION, SOURCE)
    packet = Ether(data)
    assert len(data) == shape.size - 4  # without the FCS: RFC 2544, section 9.1
    assert rebuilt(packet) == data
    assert packet.dst == "02:00:00:00:00:01"
    ip = packet[IP if shape.family == 4 else IPv6]
    assert ip.dst == str(VIPS[shape.family])
    transport = packet[UDP if shape.protocol == "udp" else TCP]
    assert transport.dport == 80
    if shape.protocol != "udp":
        assert transport.flags == FLAGS[shape.protocol]


@pytest.mark.parametrize(("protocol", "least"), [("udp", 66), ("tcp-ack", 78)])
def test_a_frame_that_does_not_hold_its_headers_is_refused(protocol: Any, least: int) -> None:
    with pytest.raises(ValueError, match=f"size 64: {protocol} over IPv6 has {least}"):
        frame(Shape(64, 6, protocol), DESTINATION, SOURCE)
