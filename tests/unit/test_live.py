"""The marked packet: whole but for its checksum, as Scapy reads and computes it."""

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.packet import Packet

from lbfwd.flow import parse
from lbfwd.live import marked

TOKEN = bytes(range(16))
ENDS = {
    4: ("198.51.100.7", "192.0.2.10"),
    6: ("[2001:db8::7]", "[2001:db8::10]"),
}
LAYERS = {
    ("tcp", 4): TCP, ("udp", 4): UDP, ("icmp", 4): ICMP,
    ("tcp", 6): TCP, ("udp", 6): UDP, ("icmp", 6): ICMPv6EchoRequest,
}  # fmt: skip


def made(protocol: str, family: int, port: int = 40000) -> Packet:
    source, destination = ENDS[family]
    ports = (f":{port}", ":80") if protocol != "icmp" else ("", "")
    ends = source + ports[0], destination + ports[1]
    if protocol == "icmp":
        ends = source.strip("[]"), destination.strip("[]")
    return {4: IP, 6: IPv6}[family](marked(parse(protocol, *ends), TOKEN))


def checksums(packet: Packet, layer: type[Packet]) -> tuple[int, int]:
    """The packet's, and the right one."""
    name = "cksum" if layer is ICMPv6EchoRequest else "chksum"
    right = packet.copy()
    delattr(right[layer], name)
    whole = right.__class__(bytes(right))
    return getattr(packet[layer], name), getattr(whole[layer], name)


@pytest.mark.parametrize(("protocol", "family"), LAYERS)
def test_it_is_a_packet_of_the_flow_that_nobody_accepts(protocol: str, family: int) -> None:
    packet, layer = made(protocol, family), LAYERS[protocol, family]
    assert (packet.src, packet.dst) == tuple(end.strip("[]") for end in ENDS[family])
    assert bytes(packet[layer]).endswith(b"lbfwdtrc" + TOKEN)
    wrong, right = checksums(packet, layer)
    assert (wrong - right) % 0xFFFF, "0 and 0xffff are one number"
    assert wrong, "none at all would be accepted"
    if protocol != "icmp":
        assert (packet.sport, packet.dport) == (40000, 80)
    if protocol == "tcp":
        assert packet[TCP].flags == "A"
    if family == 4:
        assert (packet.flags, packet.ttl, packet.len) == ("DF", 64, len(bytes(packet)))
        head = packet.copy()
        del head.chksum
        assert IP(bytes(head)).chksum == packet.chksum


@pytest.mark.parametrize("family", [4, 6])
def test_no_flow_makes_its_checksum_right_or_absent(family: int) -> None:
    """Ports are summands of it: for each wrong value that could be 0 there is one."""
    _wrong, right = checksums(made("udp", family, 1), UDP)
    for target in (0x5A5A, 0xFFFF, 0x0001, 0xA5A5):
        port = (right + 1 - target) % 0xFFFF or 0xFFFF
        wrong, other = checksums(made("udp", family, port), UDP)
        assert other == target
        assert wrong not in (0, other)


def test_a_token_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="a token of 3 bytes: must be 16"):
        marked(parse("udp", "192.0.2.1:1", "192.0.2.2:2"), b"abc")
