import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from scapy.utils import checksum

from lbfwd import encap
from tests.oracle.siphash import IPAddress

SRC, DST = bytes.fromhex("020000000001"), bytes.fromhex("0a1b2c3d4e5f")


@given(st.ip_addresses(v=4), st.ip_addresses(v=4))
def test_the_ipv4_header_is_scapys_with_length_0(source: IPAddress, destination: IPAddress) -> None:
    header = encap.outer_header(DST, SRC, source, destination)
    outer = IP(src=str(source), dst=str(destination), len=0, id=0, flags="DF", ttl=64, proto=47)
    frame = Ether(src=SRC.hex(":"), dst=DST.hex(":"), type=0x0800) / Raw(bytes(outer))
    assert header == bytes(frame) + bytes(4)
    assert len(header) == 14 + 20 + 4


@given(st.ip_addresses(v=6), st.ip_addresses(v=6))
def test_the_ipv6_header_is_scapys_with_length_0(source: IPAddress, destination: IPAddress) -> None:
    header = encap.outer_header(DST, SRC, source, destination)
    outer = IPv6(src=str(source), dst=str(destination), plen=0, nh=47, hlim=64)
    frame = Ether(src=SRC.hex(":"), dst=DST.hex(":"), type=0x86DD) / Raw(bytes(outer))
    assert header == bytes(frame) + bytes(4)
    assert len(header) == 14 + 40 + 4


def test_two_families_are_refused() -> None:
    rule = "outer source fd00::1 and backend 10.0.0.11 are of two families"
    with pytest.raises(ValueError, match=rule):
        encap.outer_header(DST, SRC, ip_address("fd00::1"), ip_address("10.0.0.11"))


@given(st.lists(st.integers(0, 0xFFFF), max_size=40))
def test_the_checksum_is_scapys(words: list[int]) -> None:
    data = struct.pack(f"!{len(words)}H", *words)
    assert encap.checksum(data) == checksum(data)
