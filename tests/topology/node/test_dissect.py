"""tshark dissects every kind of frame that a node emits, and finds nothing to complain about."""

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrFragment, fragment6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from lbfwd.demo.lab import Host, Lab
from tests.topology.node.stage import CONFIG, VIP4, VIP6, Stage, running
from tests.topology.node.wires import frames

pytestmark = pytest.mark.topology

CLIENT4, CLIENT6 = "198.51.100.2", "2001:db8:c::2"
EMPTY_PORT = 81
EMPTY = '[[pool]]\nname = "none"\nbackends = [{ address = "10.0.0.13", weight = 0 }]\n' + "".join(
    f'[[service]]\nvip = "{vip}"\nprotocol = "{protocol}"\nport = {EMPTY_PORT}\n'
    f'pool = "none"\nempty = "reject"\n'
    for vip in (VIP4, VIP6)
    for protocol in ("tcp", "udp")
)
OTHER_OUTER = '[node]\nouter_df = false\nsource_entropy = ["10.99.0.0/16", "2001:db8:99::/64"]'

# What is there, as tshark names it, and how often. TCP goes to IPv4 backends, UDP to IPv6 ones.
KINDS = {
    "gre && !ipv6 && tcp.srcport == 1001": 1,
    "gre && ipv6.dst == fd00::/64 && ip && udp.srcport == 1002": 1,
    "gre && ip.dst == 10.0.0.0/24 && ipv6 && tcp.srcport == 1003": 1,
    "gre && !ip && udp.srcport == 1004": 1,
    "gre && ip.id == 0x1005": 2,  # split
    "gre && ip.id == 0x1006": 2,  # fragments
    "gre && ipv6.fraghdr.ident == 0x1007": 2,
    "!gre && icmp.type == 3 && icmp.code == 4": 1,
    "!gre && icmpv6.type == 2": 1,
    "!gre && icmp.type == 0": 1,
    "!gre && icmpv6.type == 129": 1,
    "!gre && !icmp && ip && tcp.flags.reset == 1": 2,
    "!gre && !icmpv6 && ipv6 && tcp.flags.reset == 1": 2,
    "!gre && icmp.type == 3 && icmp.code == 3": 1,
    "!gre && icmpv6.type == 1 && icmpv6.code == 4": 1,
}
# Expert groups "Checksum" and "Malformed" (epan/proto.h).
WRONG = "_ws.malformed || _ws.expert.group == 0x01000000 || _ws.expert.group == 0x07000000"
CUT_QUOTATION = "(icmp.type == 3 && icmp.code == 4) || icmpv6.type == 2"


def stimuli() -> Iterator[Packet]:
    """What makes the node emit a frame of each kind, in the order of KINDS."""
    four, six = IP(src=CLIENT4, dst=VIP4), IPv6(src=CLIENT6, dst=VIP6)
    yield four / TCP(sport=1001, dport=9, flags="S") / b"odd"
    yield four / UDP(sport=1002, dport=9) / b"odd"
    yield six / TCP(sport=1003, dport=9, flags="S") / b"odd"
    yield six / UDP(sport=1004, dport=9) / b"odd"
    yield IP(src=CLIENT4, dst=VIP4, id=0x1005) / UDP(sport=1005, dport=9) / Raw(bytes(1472))
    whole = IP(src=CLIENT4, dst=VIP4, id=0x1006) / UDP(sport=1006, dport=9) / Raw(bytes(2000))
    yield from fragment(whole, 1208)
    extended = six / IPv6ExtHdrFragment(id=0x1007) / UDP(sport=1007, dport=9) / Raw(bytes(2000))
    yield from fragment6(extended, 1280)
    yield IP(src=CLIENT4, dst=VIP4, flags="DF") / TCP(sport=1008, dport=9) / Raw(bytes(1460))
    yield six / TCP(sport=1009, dport=9, flags="A") / Raw(bytes(1440))
    yield four / ICMP(id=1, seq=1) / b"odd"
    yield six / ICMPv6EchoRequest(id=1, seq=1, data=b"odd")
    for ip in (four, six):
        yield ip / TCP(sport=1010, dport=EMPTY_PORT, flags="S", seq=7)
        yield ip / TCP(sport=1011, dport=EMPTY_PORT, flags="A", ack=7) / b"odd"
    for ip in (four, six):
        yield ip / UDP(sport=1012, dport=EMPTY_PORT) / b"odd"


def emitted(stage: Stage) -> list[bytes]:
    """Send the stimuli; returns what comes back to the client, and to the backends."""
    ethernet = Ether(src=stage.mac(stage.client, "c0"), dst=stage.mac(stage.node, "n0"))
    source, sink = stage.tap(stage.client, "c0"), stage.tap(stage.farm, "f0")
    for stimulus in stimuli():
        source.send(bytes(ethernet / stimulus))
    return [*frames(sink), *frames(source)]


def write_pcap(file: Path, captured: Iterable[bytes]) -> None:
    head = struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    file.write_bytes(
        head
        + b"".join(struct.pack("=IIII", n, 0, len(f), len(f)) + f for n, f in enumerate(captured))
    )


def matching(host: Host, file: Path, display_filter: str, *verified: str) -> list[str]:
    """The lines of tshark's summary; ``verified``: protocols whose checksums are."""
    checks = [part for name in verified for part in ("-o", f"{name}.check_checksum:TRUE")]
    return host.run("tshark", "-n", "-r", str(file), *checks, "-Y", display_filter).splitlines()


def wrong(host: Host, file: Path) -> list[str]:
    """Frames that tshark complains about.

    The checksum of a quoted TCP segment cannot be verified where the quotation ends before it.
    """
    whole = matching(host, file, f"!({CUT_QUOTATION}) && ({WRONG})", "ip", "tcp", "udp")
    return whole + matching(host, file, f"({CUT_QUOTATION}) && ({WRONG})", "ip", "udp")


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(CONFIG, id="default"),
        pytest.param(
            CONFIG.replace("[node]", OTHER_OUTER), id="no-df-entropy", marks=pytest.mark.slow
        ),
    ],
)
def test_every_kind_of_frame_is_sound(tmp_path: Path, config: str) -> None:
    file = tmp_path / "emitted.pcap"
    with running(tmp_path, config + EMPTY) as (stage, node):
        write_pcap(file, emitted(stage))
        assert {kind: len(matching(stage.node, file, kind)) for kind in KINDS} == KINDS
        assert wrong(stage.node, file) == []
        if config is not CONFIG:
            outer = "gre && !(ip.src == 10.99.0.0/16) && !(ipv6.src == 2001:db8:99::/64)"
            assert matching(stage.node, file, outer) == []
            assert len(matching(stage.node, file, "gre && ip.src == 10.99.0.0/16")) == 2
            assert len(matching(stage.node, file, "ip.proto == 47 && ip.flags.df == 1")) == 0
        status = node.status()
        assert {reason: n for reason, n in status["drops"].items() if n} == {
            "too_big": 2, "echo_answered": 2, "rejected": 6,
        }  # fmt: skip


def test_tshark_would_complain(tmp_path: Path) -> None:
    """The counter-test: damaged frames are found, in outer and inner headers."""
    inner = bytes(IP(src=CLIENT4, dst=VIP4) / UDP(sport=1, dport=2) / b"abcd")
    outer = Ether() / IP(src="10.0.0.1", dst="10.0.0.2", proto=47)
    good = bytes(outer / Raw(b"\0\0\x08\0" + inner))
    bad = [good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :] for at in (14 + 10, 14 + 24 + 10, 65)]
    file = tmp_path / "damaged.pcap"
    write_pcap(file, [good, *bad])
    with Lab() as lab:
        assert len(wrong(lab.host("shark"), file)) == len(bad)
