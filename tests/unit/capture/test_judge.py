from dataclasses import replace

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet, Raw

from lbfwd.capture import pcapng
from lbfwd.capture.judge import Judge
from lbfwd.capture.outlook import Outlook, shortened
from lbfwd.capture.selection import Asked, select
from lbfwd.capture.tap import Frame
from tests.oracle.encap import wrapped
from tests.unit.capture.site import ETHER, VIP4, VIP6, WEB_A, WEB_B, backend, ip_address, status

CLIENT, NODE = "198.51.100.2", ip_address("10.0.0.1")
MTU = 1500
S = 1_000_000_000


def inner(transport: Packet, vip: object = VIP4, source: str = CLIENT) -> Packet:
    return IP(src=source, dst=str(vip)) / transport


WEB = inner(TCP(sport=4000, dport=80))
STRAY = inner(UDP(sport=4000, dport=9))


def frame(packet: Packet, sent_to: object = None, time_ns: int = S) -> Frame:
    data = bytes(ETHER / packet)
    if sent_to is not None:
        data = wrapped(bytes(packet), NODE, sent_to, bytes(6), bytes(6))  # type: ignore[arg-type]
    flags = pcapng.INBOUND if sent_to is None else pcapng.OUTBOUND
    return Frame(0, time_ns, len(data), data, flags, unfinished=False)


class Node:
    """What the tables say, and what they were asked."""

    def __init__(self, backend: object = WEB_A, reason: str = "none") -> None:
        self.answer = Outlook(backend, reason)  # type: ignore[arg-type]
        self.asked: list[bytes] = []

    def __call__(self, data: bytes) -> Outlook:
        self.asked.append(data)
        return self.answer

    def judge(self, **asked: object) -> Judge:
        selection = select(status(), Asked(**asked))  # type: ignore[arg-type]
        return Judge(selection, self, {0: MTU}, {NODE})


DROPPED = {"backend": None, "reason": "no_service"}


def test_what_is_said_of_packets() -> None:
    judge = Node().judge()
    assert judge.comment(frame(WEB)) == "packet=before service=web backend=a"
    assert judge.comment(frame(WEB, WEB_A)) == "packet=after service=web backend=a"
    probe = inner(TCP(sport=4000, dport=80), source=str(NODE))
    assert judge.comment(frame(probe, WEB_A)) == (
        "packet=after service=web backend=a from=health-probe"
    )
    assert judge.comment(replace(frame(WEB), unfinished=True)) == (
        "packet=before service=web backend=a checksum=unfinished"
    )
    assert Node(**DROPPED).judge().comment(frame(STRAY)) == "packet=before reason=no_service"


def test_what_is_none_of_ours() -> None:
    judge = Node().judge()
    assert judge.comment(frame(WEB, ip_address("10.9.9.9"))) is None
    assert judge.comment(frame(inner(TCP(), vip="192.0.2.99"))) is None
    assert judge.comment(frame(IPv6(dst=str(VIP6), src="::1") / TCP(dport=80))) is not None


def test_a_backend() -> None:
    assert Node(WEB_A).judge(backend="web/b").comment(frame(WEB)) is None
    assert Node(WEB_B).judge(backend="web/b").comment(frame(WEB)) is not None


def test_one_server_may_have_another_name_in_each_pool() -> None:
    web, dns = status().pools
    dns = dns.model_copy(update={"backends": (backend("resolver", WEB_A),)})
    node = status().model_copy(update={"pools": (web, dns)})
    judge = Judge(select(node, Asked()), Node(WEB_A), {0: MTU}, {NODE})
    query = inner(UDP(sport=4000, dport=53))
    for side, to in (("before", None), ("after", WEB_A)):
        assert judge.comment(frame(WEB, to)) == f"packet={side} service=web backend=a"
        assert judge.comment(frame(query, to)) == f"packet={side} service=dns backend=resolver"


def test_drops() -> None:
    assert Node().judge(drop="any").comment(frame(WEB)) is None
    assert Node(**DROPPED).judge(drop="any").comment(frame(STRAY)) is not None
    assert Node(**DROPPED).judge(drop="no_service").comment(frame(STRAY)) is not None
    assert Node(None, "truncated").judge(drop="no_service").comment(frame(STRAY)) is None


def test_a_flow_is_looked_up_once_a_second() -> None:
    node = Node()
    judge = node.judge()
    for time_ns in (S, S + 1, 2 * S - 1, 2 * S, 2 * S + 1):
        judge.comment(frame(WEB, time_ns=time_ns))
    assert len(node.asked) == 2
    judge.comment(frame(inner(TCP(sport=4001, dport=80)), time_ns=2 * S + 2))
    assert len(node.asked) == 3


def test_drops_are_looked_up_packet_by_packet() -> None:
    for node, asked in ((Node(**DROPPED), ""), (Node(), "any")):
        judge = node.judge(drop=asked)
        for _ in range(3):
            judge.comment(frame(WEB))
        assert len(node.asked) == 3


def test_the_path_is_asked_of_whole_packets() -> None:
    node = Node()
    judge = node.judge(drop="any")
    large = frame(inner(TCP(sport=4000, dport=80) / Raw(b"x" * 9000)))
    judge.comment(large)  # a super-frame: larger than the interface's MTU
    cut = frame(inner(TCP(sport=4000, dport=80) / Raw(b"x" * 1000)))
    judge.comment(replace(cut, data=cut.data[:200]))
    assert [len(data) for data in node.asked] == [512, 200]
    for data in node.asked:
        packet = IP(data[14:])
        assert packet.len == len(packet)
        again = packet.copy()
        del again.chksum
        assert bytes(again) == data[14:]
    whole = bytes(large.data[:14]) + bytes(WEB)
    judge.comment(replace(frame(WEB), data=whole, length=len(whole)))
    assert node.asked[-1] == whole


def test_shortened_ipv6() -> None:
    data = bytes(ETHER / IPv6(src="::1", dst="::2") / TCP() / Raw(b"x" * 100))[:80]
    assert IPv6(shortened(data)[14:]).plen == 80 - 14 - 40


def test_what_is_no_packet_is_not_shortened() -> None:
    for data in (b"", b"x" * 14, bytes(ETHER)[:12] + b"\x08\x06" + b"x" * 40):
        assert shortened(data) == data
