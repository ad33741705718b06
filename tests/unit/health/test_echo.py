"""Echo messages against Scapy's; and what a raw socket hears of them."""

import os
import socket

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest
from scapy.packet import Raw

from lbfwd.health import echo
from lbfwd.net import bpf

NAME, SEQUENCE = 61234, 2


@pytest.mark.parametrize("length", [48, 100, 101, 1476, 65515])
def test_a_request_is_scapys(length: int) -> None:
    packet = ICMP(type=8, id=NAME, seq=SEQUENCE) / Raw(bytes(length - 28))
    assert echo.request(4, NAME, SEQUENCE, length) == bytes(packet)
    whole = IP(bytes(IP(dst="192.0.2.10") / packet))
    assert whole.len == length
    packet6 = ICMPv6EchoRequest(id=NAME, seq=SEQUENCE, cksum=0, data=bytes(length - 48))
    assert echo.request(6, NAME, SEQUENCE, length) == bytes(packet6)


def reply4(**changes: int) -> bytes:
    return bytes(IP(src="192.0.2.10") / ICMP(**{"type": 0, "id": NAME, "seq": SEQUENCE} | changes))


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (reply4(), True),
        (reply4(id=NAME + 1), False),
        (reply4(seq=SEQUENCE + 1), False),
        (reply4(type=8), False),
        (reply4(code=1), False),
        (reply4()[:27], False),
        (b"", False),
    ],
)
def test_an_ipv4_reply_is_known(data: bytes, wanted: bool) -> None:
    assert echo.answers(4, data, NAME, SEQUENCE) == wanted


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        (ICMPv6EchoReply(id=NAME, seq=SEQUENCE), True),
        (ICMPv6EchoReply(id=NAME, seq=SEQUENCE + 1), False),
        (ICMPv6EchoRequest(id=NAME, seq=SEQUENCE), False),
        (Raw(b"\x81\0\0\0"), False),
    ],
)
def test_an_ipv6_reply_is_known(message: ICMPv6EchoReply, wanted: bool) -> None:
    assert echo.answers(6, bytes(message), NAME, SEQUENCE) == wanted


LOOPBACK = {4: "127.0.0.1", 6: "::1"}
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
ICMP_OF = {4: socket.IPPROTO_ICMP, 6: socket.IPPROTO_ICMPV6}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: raw sockets")
@pytest.mark.parametrize("version", [4, 6])
def test_a_raw_socket_hears_replies_of_its_name_and_costs_nothing_with_all_others(
    version: int,
) -> None:
    """The loopback's kernel answers in order: what was asked last is heard last."""
    kind = FAMILY[version], socket.SOCK_RAW, ICMP_OF[version]
    with socket.socket(*kind) as ours, socket.socket(*kind) as others:
        bpf.attach(ours, echo.heard(version, NAME))
        for sock in (ours, others):
            sock.connect((LOOPBACK[version], 0))
            sock.settimeout(10.0)
        for sequence in range(100):
            others.send(echo.request(version, NAME ^ 1, sequence, 100))
        others.send(echo.request(version, NAME, SEQUENCE, 100))
        assert echo.answers(version, ours.recv(4096), NAME, SEQUENCE)
        others.send(echo.request(version, NAME ^ 0x100, 7, 100))
        while not echo.answers(version, others.recv(4096), NAME ^ 0x100, 7):
            pass  # requests and replies of all names
        ours.setblocking(False)
        with pytest.raises(BlockingIOError):
            ours.recv(4096)
