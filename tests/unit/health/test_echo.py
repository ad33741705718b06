"""Echo messages against Scapy's."""

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest
from scapy.packet import Raw

from lbfwd.health import echo

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
