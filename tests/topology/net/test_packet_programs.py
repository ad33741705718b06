"""The socket filter and the fanout program on the kernel.

    a (sends frames) ── v0 ═══ v0 ── b (packet sockets)

veth hands frames over within the send call, so what was sent is in the queues at once.
"""

import fcntl
import os
import socket
import struct
from ipaddress import IPv6Address, ip_address

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, fragment6
from scapy.layers.l2 import ARP, Dot1Q, Ether

from lbfwd.net import bpf
from lbfwd.net.bpf import encode, op
from lbfwd.net.fanout import fanout_program
from lbfwd.net.filter import ADMIT_ALL, DROP_ALL, vip_filter
from tests.topology.net.wire import (
    PACKET_FANOUT_DATA,
    SENTINEL,
    SO_ATTACH_FILTER,
    SOL_PACKET,
    inside,
    load,
    mac,
    received,
    sender,
    tap,
    until,
    waiting,
)
from tests.unit.net.cbpf import Packet, run

pytestmark = pytest.mark.topology

VIPS = [ip_address("192.0.2.10"), ip_address("2001:db8::10")]
WORKERS = 3
QUEUES = 4


@pytest.fixture
def hosts(lab):
    a, b = lab.host("a"), lab.host("b")
    for host in (a, b):  # no chatter of the kernel's own on the cable
        host.sysctl(ipv6__conf__default__disable_ipv6=1, ipv6__conf__all__disable_ipv6=1)
    a.run("ip", "link", "add", "v0", "type", "veth", "peer", "name", "v0", "netns", b.netns)
    for host in (a, b):
        host.run("ip", "link", "set", "v0", "up", "arp", "off")
    return a, b


@pytest.fixture
def cable(hosts):
    a, b = hosts
    with inside(a):
        out = sender("v0")
    ether = Ether(src=mac(a, "v0"), dst=mac(b, "v0"))
    with out:
        yield ether, out


def passed(host, program, out, frames):
    """Return which of the frames a socket with this filter receives."""
    # The last frame is let through by an exception in front of the program.
    sentinel = (op(bpf.LD_W, bpf.AD_PROTOCOL), *bpf.branch(bpf.JEQ, 0x88B5, ADMIT_ALL, program))
    with inside(host):
        sock = tap("v0", sentinel)
    with sock:
        for frame in [*frames, SENTINEL]:
            out.send(bytes(frame))
        return received(sock)


def test_the_filter_admits_what_is_for_a_vip(hosts, cable):
    ether, out = cable
    tag = Dot1Q(vlan=100)
    payload = b"x" * 30
    admitted = [
        ether / IP(dst="192.0.2.10") / UDP(dport=53) / payload,
        ether / IP(dst="192.0.2.10", options=b"\x01" * 4) / TCP(dport=80) / payload,
        ether / IP(dst="192.0.2.10") / ICMP() / payload,
        ether / IPv6(dst="2001:db8::10") / TCP(dport=80) / payload,
    ]
    refused = [
        ether / IP(dst="192.0.2.11") / UDP() / payload,
        ether / IP(src="192.0.2.10", dst="198.51.100.1") / UDP() / payload,
        ether / tag / IP(dst="192.0.2.11") / UDP() / payload,
        ether / IPv6(dst="2001:db8::11") / UDP() / payload,
        ether / IPv6(src="2001:db8::10", dst="2001:db8::11") / UDP() / payload,
        ether / ARP(pdst="192.0.2.10"),
        Ether(bytes(ether / IP(dst="192.0.2.10") / payload)[:12] + b"\x88\xcc" + bytes(60)),
    ]
    tagged = [ether / tag / IP(dst="192.0.2.10") / UDP() / payload]
    cut = [bytes(ether / IP(dst="192.0.2.11"))[:30], bytes(ether / IPv6(dst="::1"))[:50]]
    frames = [*refused, *admitted, *refused, *tagged, *cut]
    got = passed(hosts[1], vip_filter(VIPS), out, frames)
    untagged = ether / IP(dst="192.0.2.10") / UDP() / payload  # the ring's header has the tag
    assert got == [bytes(frame) for frame in [*admitted, untagged, *cut]]


def test_vlans_that_are_received_elsewhere_are_not_admitted(hosts, cable):
    ether, out = cable
    names = {f"vid {vid}": ether / Dot1Q(vlan=vid) for vid in (0, 7, 8, 100)} | {"none": ether}
    frames = [
        below / ip / UDP(dport=53) / name.ljust(30).encode()
        for name, below in names.items()
        for ip in (IP(dst="192.0.2.10"), IPv6(dst="2001:db8::10"))
    ]
    got = passed(hosts[1], vip_filter(VIPS, {7, 100}), out, frames)
    seen = [frame[-30:].decode().strip() for frame in got]
    assert seen == ["vid 0", "vid 0", "vid 8", "vid 8", "none", "none"]


def test_the_kernel_takes_the_longest_filter_or_says_enomem(hosts, cable):
    ether, out = cable
    program = vip_filter([ip_address("10.0.0.0") + 3 * i for i in range(1500)])
    inner = ether / IP(dst="10.0.0.9") / UDP() / (b"x" * 30)
    outer = ether / IP(dst="10.0.0.10") / UDP() / (b"x" * 30)
    with inside(hosts[1]):
        sock = tap("v0", DROP_ALL)
    with sock:
        load(sock, socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
        out.send(bytes(outer))
        out.send(bytes(inner))
        assert received(sock, last=bytes(inner)) == []


def test_frames_that_the_host_sends_are_not_admitted(hosts, cable):
    ether, _ = cable
    frame = bytes(ether / IP(dst="192.0.2.10") / UDP() / (b"x" * 30))
    with inside(hosts[1]):
        sock = tap("v0", vip_filter(VIPS))
        sock.setsockopt(SOL_PACKET, 23, 0)  # PACKET_IGNORE_OUTGOING off: the filter alone
        everything = tap("v0", ADMIT_ALL)
        everything.setsockopt(SOL_PACKET, 23, 0)
        own = sender("v0")
    with sock, everything, own:
        own.send(frame)
        assert received(everything, last=frame) == []
        assert waiting(sock) == []


def frames_of(ether):
    payload = b"x" * 64
    for i in range(1, 121):
        tag = Dot1Q(vlan=100) if i % 3 == 0 else None
        below = ether / tag if tag else ether
        yield below / IP(src=f"10.1.{i}.1", dst="192.0.2.10") / TCP(sport=i, dport=80) / payload
        yield below / IP(dst="192.0.2.10", options=b"\x01" * 8) / UDP(sport=i, dport=53) / payload
        six = IPv6(src=str(IPv6Address("2001:db8:1::") + i), dst="2001:db8::10")
        yield below / six / UDP(sport=i, dport=53) / payload
        yield ether / IP(src=f"10.1.{i}.2", dst="192.0.2.10") / ICMP() / payload


def network_layer(frame):
    """What a fanout program sees of a frame."""
    link = frame[Ether]
    while isinstance(link.payload, Dot1Q):
        link = link.payload
    return Packet(bytes(link.payload), link.type)


def untagged(frame):
    raw = bytes(frame)
    return raw[:12] + raw[16:] if Dot1Q in frame else raw


def join(stack, host, program, device="v0"):
    """Sockets made and joined in slot order."""
    with inside(host):
        socks = [stack.enter_context(tap(device, ADMIT_ALL, group=0x1B)) for _ in range(WORKERS)]
    load(socks[0], SOL_PACKET, PACKET_FANOUT_DATA, program)
    return socks


def spread(socks, out, frames):
    """Return the frames that each socket receives."""
    for frame in frames:
        out.send(bytes(frame))
    return [waiting(sock) for sock in socks]


def expected(program, frames):
    slots = [[] for _ in range(WORKERS)]
    for frame in frames:
        slots[run(encode(program), network_layer(frame))].append(untagged(frame))
    return slots


@pytest.mark.parametrize("alive", [{0, 1, 2}, {0, 2}, {1}])
def test_the_kernel_chooses_the_slots_that_the_interpreter_names(stack, hosts, cable, alive):
    ether, out = cable
    program = fanout_program("hash", range(WORKERS), alive)
    frames = list(frames_of(ether))
    socks = join(stack, hosts[1], program)
    got = spread(socks, out, frames)
    assert got == expected(program, frames)
    assert {slot for slot, had in enumerate(got) if had} == alive


def test_fragments_of_a_datagram_meet(stack, hosts, cable):
    ether, out = cable
    socks = join(stack, hosts[1], fanout_program("hash", range(WORKERS), range(WORKERS)))
    used = set()
    for i in range(1, 30):
        payload = bytes(4000)
        four = fragment(
            IP(src=f"10.1.{i}.1", dst="192.0.2.10", id=i) / UDP(sport=i) / payload, 1400
        )
        six = IPv6(src=f"2001:db8:1::{i}", dst="2001:db8::10")
        for pieces in (
            four,
            fragment6(six / IPv6ExtHdrFragment(id=i) / UDP(sport=i) / payload, 1400),
        ):
            counts = [len(had) for had in spread(socks, out, [ether / piece for piece in pieces])]
            assert len(pieces) >= 3
            assert sorted(counts) == [0, 0, len(pieces)]
            used.add(counts.index(len(pieces)))
    assert used == {0, 1, 2}


def test_members_come_back_in_slot_order_after_a_flap(stack, hosts, cable):
    """The kernel links them in the order in which the sockets were made."""
    ether, out = cable
    b = hosts[1]
    program = fanout_program("hash", range(WORKERS), range(WORKERS))
    frames = list(frames_of(ether))
    socks = join(stack, b, program)
    for _ in range(2):
        b.run("ip", "link", "set", "v0", "down")
        b.run("ip", "link", "set", "v0", "up")
        until(lambda: "LOWER_UP" in b.run("ip", "link", "show", "v0"), "carrier")
        for sock in socks:
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in (0, 100)  # ENETDOWN
            waiting(sock)
        assert spread(socks, out, frames) == expected(program, frames)


def ancillary(stack, host, value, device):
    """A socket whose frames are cut to 60 bytes plus an ancillary value: a way to read it."""
    with inside(host):
        sock = tap(device, (op(bpf.LD_W, value), op(bpf.ADD, 60), op(bpf.RET_A)))
    return stack.enter_context(sock)


def multiqueue_tap(stack, host, device, queues):
    """A TAP device: what is written to its n-th descriptor comes from receive queue n."""
    flags = 0x0002 | 0x1000 | 0x0100  # IFF_TAP, IFF_NO_PI, IFF_MULTI_QUEUE
    request = struct.pack("16sH22x", device.encode(), flags)
    with inside(host):
        fds = [os.open("/dev/net/tun", os.O_RDWR) for _ in range(queues)]
        for fd in fds:
            stack.callback(os.close, fd)
            fcntl.ioctl(fd, 0x400454CA, request)  # TUNSETIFF
    host.run("ip", "link", "set", device, "up", "arp", "off")
    return fds


@pytest.mark.skipif(not os.path.exists("/dev/net/tun"), reason="needs /dev/net/tun")
def test_queue_mode_follows_the_recorded_receive_queue(stack, hosts):
    host, frame = hosts[1], bytes(next(frames_of(Ether(dst="02:00:00:00:00:01"))))
    fds = multiqueue_tap(stack, host, "t0", QUEUES)
    witness = ancillary(stack, host, bpf.AD_QUEUE, "t0")
    socks = join(stack, host, fanout_program("queue", range(WORKERS), range(WORKERS)), "t0")
    for queue, fd in enumerate(fds):
        os.write(fd, frame)
        assert [len(had) for had in map(waiting, socks)] == [
            int(slot == queue % WORKERS) for slot in range(WORKERS)
        ]
        assert [len(cut) - 60 for cut in waiting(witness)] == [queue + 1]


def test_queue_mode_hashes_where_the_driver_records_no_queue(stack, hosts, cable):
    ether, out = cable
    frames = list(frames_of(ether))
    witness = ancillary(stack, hosts[1], bpf.AD_QUEUE, "v0")
    socks = join(stack, hosts[1], fanout_program("queue", range(WORKERS), range(WORKERS)))
    got = spread(socks, out, frames)
    assert {len(cut) for cut in waiting(witness)} == {60}
    assert got == expected(fanout_program("hash", range(WORKERS), range(WORKERS)), frames)


def test_queue_mode_on_veth_sees_the_queue_that_the_sender_chose(stack, hosts):
    """veth records none: the sender's TX queue n stays behind and reads as receive queue n - 1."""
    a, b = hosts
    queues = f"numrxqueues {QUEUES} numtxqueues {QUEUES}"
    a.run(*f"ip link add m0 {queues} type veth peer name m0 {queues} netns {b.netns}".split())
    for host in hosts:
        host.run("ip", "link", "set", "m0", "up", "arp", "off")
    with inside(a):
        out = stack.enter_context(sender("m0"))
    frame = next(frames_of(Ether(src=mac(a, "m0"), dst=mac(b, "m0"))))
    witness = ancillary(stack, b, bpf.AD_QUEUE, "m0")
    program = fanout_program("queue", range(WORKERS), range(WORKERS))
    socks = join(stack, b, program, "m0")
    everywhere = f"{sum(1 << cpu for cpu in os.sched_getaffinity(0)):x}"
    for queue in range(QUEUES):
        for other in range(QUEUES):
            file = f"/sys/class/net/m0/queues/tx-{other}/xps_cpus"
            a.run("sh", "-c", f"echo {everywhere if other == queue else 0} > {file}")
        got = [len(had) for had in spread(socks, out, [frame])]
        assert [len(cut) - 60 for cut in waiting(witness)] == [queue]
        if queue:
            assert got == [int(slot == (queue - 1) % WORKERS) for slot in range(WORKERS)]
        else:
            assert got == [len(had) for had in expected(program, [frame])]


def test_cpu_mode_follows_the_cpu_that_received(stack, hosts, cable):
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        pytest.skip("needs two CPUs")
    ether, out = cable
    cpus = (allowed[1], 4095, allowed[0])
    frame = next(frames_of(ether))
    socks = join(stack, hosts[1], fanout_program("cpu", cpus, range(WORKERS)))
    try:
        for cpu, slot in ((allowed[1], 0), (allowed[0], 2)):
            os.sched_setaffinity(0, {cpu})
            got = [len(had) for had in spread(socks, out, [frame])]
            assert got == [int(i == slot) for i in range(WORKERS)]
    finally:
        os.sched_setaffinity(0, allowed)
