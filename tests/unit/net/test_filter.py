import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbfwd.net.bpf import ProgramTooLong, encode
from lbfwd.net.filter import ADMIT_ALL, DROP_ALL, vip_filter
from tests.unit.net.cbpf import Packet, run

VIP4, VIP6 = ip_address("192.0.2.10"), ip_address("2001:db8::10")

# Small ranges, so that addresses collide, share words and stand side by side.
near4 = st.integers(0xC0000200, 0xC0000240).map(IPv4Address)
near6 = st.builds(
    lambda words: IPv6Address(sum(word << 32 * i for i, word in enumerate(words))),
    st.lists(st.integers(0, 2), min_size=4, max_size=4),
)
addresses = st.one_of(
    near4, near6, st.builds(IPv4Address, st.integers(0, 2**32 - 1)), st.ip_addresses(v=6)
)


def frame(destination):
    """An Ethernet frame to this address; every other byte is 0xee."""
    if destination.version == 4:
        ip = b"\x45" + b"\xee" * 15 + destination.packed + b"\xee" * 8
        return Packet(b"\xee" * 12 + b"\x08\x00" + ip, 0x0800)
    ip = b"\x60" + b"\xee" * 23 + destination.packed + b"\xee" * 8
    return Packet(b"\xee" * 12 + b"\x86\xdd" + ip, 0x86DD)


def admitted(program, packet):
    return run(encode(program), packet) != 0


@settings(deadline=None)  # a busy machine is no failure
@given(st.sets(addresses, max_size=60), addresses)
def test_admits_the_vips_and_nothing_else(vips, other):
    program = vip_filter(vips)
    assert all(admitted(program, frame(vip)) for vip in vips)
    assert admitted(program, frame(other)) == (other in vips)


@pytest.mark.parametrize("base", ["10.0.0.0", "2001:db8::"])
def test_thousands_of_vips_fit(base):
    vips = [ip_address(base) + 3 * i for i in range(2900)]
    program = vip_filter(vips)
    for vip in vips[::97] + vips[-1:]:
        assert admitted(program, frame(vip))
        assert not admitted(program, frame(vip + 1))


def test_too_many_vips_are_refused_by_name():
    with pytest.raises(ProgramTooLong, match="instructions: the kernel takes 4096"):
        vip_filter([IPv4Address(i) for i in range(5000)])


def test_the_order_and_repetition_of_vips_change_nothing():
    vips = [VIP6, VIP4, VIP4 + 1]
    assert vip_filter(vips) == vip_filter([*reversed(vips), VIP4])


def test_no_vips_admit_nothing():
    assert not admitted(vip_filter([]), frame(VIP4))


def test_a_frame_that_is_no_ip_is_not_admitted_though_it_holds_the_address():
    program = vip_filter([VIP4, VIP6])
    assert not admitted(program, Packet(frame(VIP4).data, 0x0806))
    assert not admitted(vip_filter([VIP4]), Packet(frame(VIP4).data, 0x86DD))


@pytest.mark.parametrize("vip", [VIP4, VIP6])
def test_frames_cut_before_their_destination_are_admitted_to_be_counted(vip):
    whole, end = frame(vip), {4: 34, 6: 54}[vip.version]
    other = frame(vip + 1)
    program = vip_filter([vip])
    for length in range(14, end):
        assert admitted(program, Packet(other.data[:length], whole.protocol))
    assert admitted(program, Packet(whole.data[:end], whole.protocol))
    assert not admitted(program, Packet(other.data[:end], whole.protocol))


@pytest.mark.parametrize("vip", [VIP4, VIP6])
def test_vlans_that_are_received_elsewhere_are_not_admitted(vip):
    program = vip_filter([VIP4, VIP6], {7, 4094})
    whole = frame(vip)
    priority = 5 << 13
    tags = {None: True, 0: True, priority: True, 8: True, 4093: True,
            7: False, priority | 7: False, 4094: False}  # fmt: skip
    for tag, expected in tags.items():
        assert admitted(program, Packet(whole.data, whole.protocol, tag=tag)) == expected, tag
    assert not admitted(program, Packet(frame(vip + 1).data, whole.protocol, tag=8))


def test_what_this_machine_sends_is_not_admitted():
    packet = frame(VIP4)
    outgoing = Packet(packet.data, packet.protocol, pkttype=4)
    assert not admitted(vip_filter([VIP4]), outgoing)


def test_admit_all_and_drop_all():
    assert run(encode(ADMIT_ALL), Packet(b"", 0)) == 0xFFFFFFFF
    assert run(encode(DROP_ALL), Packet(b"x" * 60, 0x0800)) == 0
    assert struct.calcsize("=HBBI") == len(encode(DROP_ALL))
