"""Scapy reads what we write."""

from io import BytesIO

from scapy.utils import RawPcapNgReader

from lbfwd.capture import pcapng

NS = 1_795_521_476_925_931_606


def read(*blocks: bytes) -> list[tuple[bytes, object]]:
    data = pcapng.section("lbfwd 1", "Linux 6", "all") + b"".join(blocks)
    return list(RawPcapNgReader(BytesIO(data)))


def packet(number: int, data: bytes, comment: str = "service=web", **fields: int) -> bytes:
    full = {"time_ns": NS, "length": len(data), "flags": pcapng.INBOUND} | fields
    return pcapng.packet(pcapng.Packet(number, data=data, comment=comment, **full))


def test_packets_of_two_interfaces() -> None:
    interfaces = pcapng.interface("eth0", 65536), pcapng.interface("eth1", 65536)
    found = read(*interfaces, packet(0, b"abcde"), packet(1, b"abcdefgh", "ä" * 5))
    assert [data for data, _ in found] == [b"abcde", b"abcdefgh"]
    first, second = (metadata for _, metadata in found)
    assert (first.ifname, second.ifname) == (b"eth0", b"eth1")
    assert (first.comments, second.comments) == ([b"service=web"], ["äääää".encode()])
    assert first.linktype == pcapng.ETHERNET


def test_times_are_nanoseconds() -> None:
    ((_, metadata),) = read(pcapng.interface("eth0", 65536), packet(0, b"x"))
    assert metadata.tsresol == 10**9
    assert (metadata.tshigh << 32) + metadata.tslow == NS


def test_a_packet_that_was_cut_tells_its_length() -> None:
    ((data, metadata),) = read(pcapng.interface("eth0", 4), packet(0, b"abcd", length=1500))
    assert (data, metadata.wirelen) == (b"abcd", 1500)


def test_directions() -> None:
    flags = (pcapng.INBOUND | pcapng.UNICAST, pcapng.OUTBOUND)
    found = read(pcapng.interface("eth0", 0), *(packet(0, b"x", flags=f) for f in flags))
    assert [metadata.direction for _, metadata in found] == [1, 2]


def test_statistics_disturb_nobody() -> None:
    found = read(pcapng.interface("eth0", 0), packet(0, b"x"), pcapng.statistics(0, NS, 10, 3))
    assert len(found) == 1
