"""Many flows, quickly: frames patched from one that Scapy built."""

import struct
from dataclasses import dataclass
from functools import cache
from ipaddress import ip_address

from scapy.layers.inet import IP, TCP, UDP
from scapy.packet import Raw

from lbfwd import ring
from tests.oracle import siphash
from tests.packet.bench import NOW_MS, SECRET, VIP4
from tests.packet.crafted import ethernet, ip

PROTOCOLS = {"tcp": 6, "udp": 17}
SOURCE_AT, PORTS_AT = 26, 34
OUTER_DESTINATION = slice(30, 34)  # of a frame with an IPv4 outer header


@cache
def _template(protocol: str, flags: str) -> bytes:
    head = ip(4, src="0.0.0.0", chksum=0, id=1)
    segment = TCP(flags=flags, chksum=0) if protocol == "tcp" else UDP(chksum=0)
    segment.sport, segment.dport = 0, 84
    return bytes(ethernet() / head / segment / Raw(b"x"))


def _mended(data: bytes) -> bytes:
    """The frame with its IPv4 header checksum, which is 0."""
    total = sum(struct.unpack("!10H", data[14:34]))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return data[:24] + struct.pack("!H", ~total & 0xFFFF) + data[26:]


@dataclass(frozen=True)
class Flow:
    """A client's flow to port 84 of the IPv4 VIP."""

    source: int
    sport: int = 4000
    protocol: str = "tcp"

    def packet(self, flags: str = "A") -> bytes:
        data = _template(self.protocol, flags if self.protocol == "tcp" else "")
        data = data[:SOURCE_AT] + struct.pack("!I", self.source) + data[SOURCE_AT + 4 :]
        return _mended(data[:PORTS_AT] + struct.pack("!H", self.sport) + data[PORTS_AT + 2 :])

    def answer(self) -> bytes:
        """The head of what the VIP sends to the client: quoted in errors."""
        head = IP(src=str(VIP4), dst=str(ip_address(self.source)))
        kind = TCP if self.protocol == "tcp" else UDP
        return bytes(head / kind(sport=84, dport=self.sport))[:28]

    @property
    def hash(self) -> int:
        key = siphash.flow_key(
            ip_address(self.source), VIP4, self.sport, 84, PROTOCOLS[self.protocol]
        )
        return siphash.flow_hash(key, SECRET)


def flows(count: int, protocol: str = "tcp", first: int = 0x0B000000) -> list[Flow]:
    return [Flow(first + n * 7, 1024 + n % 50000, protocol) for n in range(count)]


def send(worker: ring.Worker, frame: bytes, now_ms: int = NOW_MS) -> str:
    """Forward one frame; the name of the backend that got it, ``b`` and its last byte."""
    worker.forward(frame, now_ms=now_ms)
    (sent,) = worker.sent(0)
    return f"b{sent[OUTER_DESTINATION][3]}"
