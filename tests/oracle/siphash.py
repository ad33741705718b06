"""Flow keys, flow hashes and buckets (docs/architecture.md), by the siphash24 package."""

import struct
from ipaddress import IPv4Address, IPv6Address

import siphash24

IPAddress = IPv4Address | IPv6Address


def flow_key(
    source: IPAddress, destination: IPAddress, source_port: int, port: int, protocol: int
) -> bytes:
    """13 bytes for IPv4, 37 for IPv6, in network byte order."""
    return source.packed + destination.packed + struct.pack("!HHB", source_port, port, protocol)


def source_key(source: IPAddress, destination: IPAddress) -> bytes:
    """The key of a service with source affinity: ports and protocol are 0."""
    return flow_key(source, destination, 0, 0, 0)


def flow_hash(key: bytes, secret: bytes) -> int:
    """SipHash-1-3; the digest is read as a little-endian unsigned number."""
    return int.from_bytes(siphash24.siphash13(key, key=secret).digest(), "little")


def bucket(affinity_hash: int, size: int) -> int:
    """The upper 32 bits, scaled to the table."""
    return (affinity_hash >> 32) * size >> 32


def path(affinity_hash: int, paths: int) -> int:
    """Which of a backend's next hops: the lower 32 bits, scaled. Independent of the bucket."""
    return (affinity_hash & 0xFFFFFFFF) * paths >> 32
