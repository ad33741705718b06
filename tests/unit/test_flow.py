"""Flows as people write them, and their packets as Scapy reads them."""

import re
from ipaddress import ip_address

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Ether

from lbfwd.flow import packet, parse, parse_end

FLOWS = [
    ("tcp", "198.51.100.7:40000", "192.0.2.10:443"),
    ("udp", "198.51.100.7:1", "192.0.2.10:65535"),
    ("icmp", "198.51.100.7", "192.0.2.10"),
    ("tcp", "[2001:db8::7]:40000", "[2001:db8::10]:443"),
    ("udp", "[2001:db8::7]:53", "[2001:db8::10]:53"),
    ("icmp", "2001:db8::7", "2001:db8::10"),
]
ENDS = [
    ("192.0.2.1", ("192.0.2.1", None)),
    ("192.0.2.1:80", ("192.0.2.1", 80)),
    ("2001:db8::1", ("2001:db8::1", None)),
    ("[2001:db8::1]", ("2001:db8::1", None)),
    ("[2001:db8::1]:80", ("2001:db8::1", 80)),
]
LAYERS = {
    ("tcp", 4): TCP, ("tcp", 6): TCP, ("udp", 4): UDP, ("udp", 6): UDP,
    ("icmp", 4): ICMP, ("icmp", 6): ICMPv6EchoRequest,
}  # fmt: skip


@pytest.mark.parametrize("words", FLOWS, ids=" ".join)
def test_what_is_read_is_printed_again(words: tuple[str, str, str]) -> None:
    assert str(parse(*words)) == " ".join(words)


@pytest.mark.parametrize("words", FLOWS, ids=" ".join)
def test_its_packet_is_right_to_the_last_checksum(words: tuple[str, str, str]) -> None:
    flow = parse(*words)
    data = packet(flow)
    frame = Ether(data)
    ip = frame[IPv6 if flow.source.version == 6 else IP]
    assert (ip.src, ip.dst) == (str(flow.source), str(flow.destination))
    layer = ip[LAYERS[flow.protocol, flow.source.version]]
    if flow.protocol != "icmp":
        assert (layer.sport, layer.dport) == (flow.source_port, flow.destination_port)
    if flow.protocol == "tcp":
        assert str(layer.flags) == "A"
    for checked, name in ((ip, "chksum"), (layer, "chksum"), (layer, "cksum")):
        if name in checked.fields:
            delattr(checked, name)
    assert bytes(frame) == data, "Scapy computes the same checksums"


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (("sctp", "1.2.3.4:1", "1.2.3.4:2"), "protocol 'sctp': must be one of tcp, udp, icmp"),
        (("tcp", "1.2.3.4", "1.2.3.4:2"), "source '1.2.3.4': tcp needs a port: 1.2.3.4:PORT"),
        (("tcp", "1.2.3.4:1", "::1"), r"destination '::1': tcp needs a port: \[::1\]:PORT"),
        (("udp", "1.2.3.4:0", "1.2.3.4:2"), "port '0' must be a number from 1 to 65535"),
        (("udp", "1.2.3.4:65536", "1.2.3.4:2"), "port '65536' must be"),
        (("udp", "1.2.3.4:٣", "1.2.3.4:2"), "port '٣' must be"),
        (("udp", "1.2.3.4:", "1.2.3.4:2"), "port '' must be"),
        (("udp", "1.2.3.4:1", "[::1]:2"), "must be of one family"),
        (("icmp", "1.2.3.4:1", "1.2.3.4"), "source '1.2.3.4:1': icmp has no ports"),
        (("tcp", "client:1", "1.2.3.4:2"), "source 'client:1': must be ADDRESS"),
        (("tcp", "[1.2.3.4]:1", "1.2.3.4:2"), "must be ADDRESS"),
        (("tcp", "", "1.2.3.4:2"), "source '': must be ADDRESS"),
    ],
)
def test_what_makes_no_sense_is_named(words: tuple[str, str, str], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        parse(*words)


@pytest.mark.parametrize(("text", "want"), ENDS)
def test_an_end_may_do_without_a_port(text: str, want: tuple[str, int | None]) -> None:
    assert parse_end("source", text) == (ip_address(want[0]), want[1])


@pytest.mark.parametrize("text", ["", "192.0.2", "192.0.2.1:", "192.0.2.1:65536", "[::1]80", "x:1"])
def test_ends_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=f"^source {re.escape(repr(text))}: .*must be "):
        parse_end("source", text)
