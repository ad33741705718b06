"""The frames that delays are probed with, judged by Scapy."""

from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from bench.frames import PORT, VIPS
from bench.probe import FLOWS, templates

TRAILER_BYTES = 16  # bench/probe.c writes as much into a payload's end
NODE, CLIENT = bytes.fromhex("020000000001"), bytes.fromhex("0200000000fe")


def test_probes_are_udp_to_the_vip_with_room_for_a_number() -> None:
    for data in templates((NODE, CLIENT)):
        frame = Ether(data)
        assert (frame.dst, frame.src) == ("02:00:00:00:00:01", "02:00:00:00:00:fe")
        assert (frame[IP].dst, frame[UDP].dport) == (str(VIPS[4]), PORT)
        assert frame[UDP].chksum == 0  # none: the prober changes the payload
        assert frame[UDP].len == 8 + len(frame[UDP].payload)
        assert len(frame[UDP].payload) >= TRAILER_BYTES
        fresh = Ether(data)
        del fresh[IP].chksum
        assert bytes(fresh) == data


def test_every_probe_flow_is_another() -> None:
    ports = {Ether(data)[UDP].sport for data in templates((NODE, CLIENT))}
    assert len(ports) == FLOWS
