"""Echo requests to a VIP: answered, taken to a backend, or dropped. RFC 792, RFC 4443 section 4."""

from ipaddress import ip_address

import pytest
from scapy.layers.inet import ICMP, IPOption_NOP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6ExtHdrDestOpt
from scapy.packet import Raw

from tests.oracle import answer, encap, maglev, siphash
from tests.packet import bench
from tests.packet.bench import NOW_MS, SECRET, VIP4, VIP6, Bench, BenchMaker
from tests.packet.crafted import CLIENT, ip, raw
from tests.packet.memory import published

FAMILIES = (4, 6)
AT_ONCE = 100
BETWEEN_MS = 1  # 1000 a second


@pytest.fixture
def node(make_bench: BenchMaker) -> Bench:
    return make_bench(bench.all_combinations(), tx_slots=256)


def request(family: int, data: bytes = b"hello", number: int = 3, **fields: object) -> bytes:
    if family == 4:
        return raw(ip(4, **fields), ICMP(id=77, seq=number), Raw(data))
    return raw(ip(6, **fields), ICMPv6EchoRequest(id=77, seq=number, data=data))


@pytest.mark.parametrize("length", [*range(10), 55, 56, 63, 64, 1000, 1471, 1472])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_node_answers(node: Bench, family: int, length: int) -> None:
    data = request(family, bytes(n * 5 + 1 & 0xFF for n in range(length)))
    node.assert_answered(node.forward(data), "echo_answered", answer.echo_reply(data))


@pytest.mark.parametrize("number", [0, 1, 0xF7FE, 0xF7FF, 0xF800, 0xFFFF])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_carry_of_the_checksum(node: Bench, family: int, number: int) -> None:
    for word in (b"\0\0", b"\x08\0", b"\xff\xff", b"\xf7\xff", b"\x80\x01", b"\x01\x00"):
        data = request(family, word, number)
        node.assert_answered(node.forward(data), "echo_answered", answer.echo_reply(data))


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_and_options_are_not_answered(node: Bench, family: int) -> None:
    data = request(family)
    outcome = node.forward(data + b"\xee" * 9)
    node.assert_answered(outcome, "echo_answered", answer.echo_reply(data))
    if family == 4:
        optional = request(4, options=[IPOption_NOP()] * 8)
    else:
        optional = raw(ip(6), IPv6ExtHdrDestOpt(), ICMPv6EchoRequest(id=77, seq=3, data=b"hello"))
    outcome = node.forward(optional)
    node.assert_answered(outcome, "echo_answered", answer.echo_reply(data))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_damaged_request_does_not_become_a_sound_reply(node: Bench, family: int) -> None:
    data = request(family, b"hello")
    damaged = data[:-1] + b"\x00"
    (sent,) = node.forward(damaged).frames
    reply = answer.echo_reply(data)
    assert sent == reply[:-1] + b"\x00", "the checksum is still the undamaged request's"


def test_another_code_is_no_request(node: Bench) -> None:
    node.assert_dropped(node.forward(raw(ip(4), ICMP(code=1))), "unsupported_protocol")
    data = raw(ip(6), ICMPv6EchoRequest(code=1))
    node.assert_dropped(node.forward(data), "unsupported_protocol")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_request_larger_than_the_ring_is_not_answered(node: Bench, family: int) -> None:
    node.assert_dropped(node.forward(request(family, bytes(5000))), "too_big")


@pytest.mark.parametrize(
    ("family", "source"),
    [
        (4, "0.0.0.0"),
        (4, "127.0.0.1"),
        (4, "224.0.0.1"),
        (4, "255.255.255.255"),
        (6, "::"),
        (6, "ff02::1"),
    ],
)
def test_nobody_is_answered_who_is_no_single_host(node: Bench, family: int, source: str) -> None:
    """RFC 1122 sections 3.2.1.3 and 3.2.2, RFC 4443 section 2.4 (e.6)."""
    data = request(family, src=source)
    outcome = node.forward(data)
    assert (outcome.frames, outcome.drops) == ([], {"echo_refused": 1})


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("at", [0, 6], ids=["to a group", "from a group"])
def test_nor_who_used_a_groups_mac(node: Bench, at: int, family: int) -> None:
    """RFC 1122 section 3.2.2, RFC 4443 section 2.4 (e.4): it was not sent to us alone."""
    data = bytearray(request(family))
    data[at] |= 1
    node.assert_dropped(node.forward(bytes(data)), "echo_refused")


# ---- the rate ----


@pytest.mark.parametrize("family", FAMILIES)
def test_the_rate_is_bounded(node: Bench, family: int) -> None:
    """A token bucket: 100 at once, then one a millisecond."""
    data = request(family)
    outcome = node.forward(*[data] * (AT_ONCE + 20))
    assert outcome.drops == {"echo_answered": AT_ONCE, "rate_limited": 20}
    assert outcome.events == {"answer_suppressed": 20}
    assert outcome.frames == [answer.echo_reply(data)] * AT_ONCE
    for later, answered in ((0, 0), (1, 1), (1, 0), (11, 10), (50, 39), (10_000, AT_ONCE)):
        outcome = node.forward(*[data] * 150, now_ms=NOW_MS + later * BETWEEN_MS)
        assert outcome.drops.get("echo_answered", 0) == answered


def test_the_first_answer_of_a_machine_that_has_just_booted(node: Bench) -> None:
    assert node.forward(request(4), now_ms=1).drops == {"echo_answered": 1}


def test_no_room_for_the_reply(make_bench: BenchMaker) -> None:
    node = make_bench(bench.all_combinations(), tx_slots=4)
    outcome = node.forward(*[request(4)] * 6)
    assert outcome.drops == {"echo_answered": 4, "tx_ring_full": 2}


def test_no_ring_for_the_reply(node: Bench) -> None:
    node.worker.remove_tx(0)
    node.worker.remove_tx(1)
    node.assert_dropped(node.forward(request(4)), "tx_not_ready")


# ---- by configuration ----


@pytest.mark.parametrize("family", FAMILIES)
def test_dropped_when_so_configured(make_bench: BenchMaker, family: int) -> None:
    node = make_bench(bench.all_combinations(echo="drop"))
    node.assert_dropped(node.forward(request(family)), "echo_refused")


@pytest.mark.parametrize("family", FAMILIES)
def test_taken_to_the_backend_of_the_source(make_bench: BenchMaker, family: int) -> None:
    """Of the VIP's first service by protocol and port: TCP before UDP, the lower port before."""
    services = [
        bench.service(vip, protocol, port, pool)
        for vip in (VIP6, VIP4)
        for protocol, port, pool in (("udp", 53, "no"), ("tcp", 443, "no"), ("tcp", 80, "p"))
    ]
    pools = [
        bench.pool("no", [bench.member(4, 99)]),
        bench.pool("p", [bench.member(4, n) for n in range(11, 18)]),
    ]
    node = make_bench(bench.forwarding(services, pools, echo="backend"))
    table = maglev.table({f"b{n}": 1 for n in range(11, 18)}, 251)
    vip = VIP4 if family == 4 else VIP6
    used = set()
    for host in range(1, 30):
        source = CLIENT[family][:-1] + (f"{host}" if family == 4 else f"{host:x}")
        key = siphash.source_key(ip_address(source), vip)
        wanted = table[siphash.bucket(siphash.flow_hash(key, SECRET), 251)]
        data = request(family, src=source)
        outcome = node.forward(data)
        assert outcome.drops == outcome.events == {}
        assert list(outcome.backends) == [("p", wanted)]
        assert list(outcome.services) == [f"{vip}:80/tcp"]
        assert [encap.unwrapped(sent) for sent in outcome.frames] == [data[14:]]
        used.add(wanted)
    assert len(used) == 7


def test_no_backend_to_take_it_to(make_bench: BenchMaker) -> None:
    node = make_bench(
        bench.forwarding(
            [bench.service(VIP4, "udp", 84, "p", empty="reject")],
            [bench.pool("p", [])],
            echo="backend",
        )
    )
    node.assert_dropped(node.forward(request(4)), "no_backend")


def test_a_vip_of_which_no_service_is_known(make_bench: BenchMaker) -> None:
    """The state is made by hand: ``Tables`` names one for each."""
    node = make_bench(bench.all_combinations(echo="backend"))
    with published(node.tables) as state:
        for number in range(state.snapshot.vip_slots):
            state.vips[number].echo_protocol = 0
    node.assert_dropped(node.forward(request(4)), "echo_refused")


def test_a_reply_of_nothing_but_zeros(node: Bench) -> None:
    """Its checksum is 0xffff: with 0, the sum over it would be 0, which does not verify."""
    data = raw(ip(4), ICMP(id=0, seq=0), Raw(bytes(64)))
    (sent,) = node.forward(data).frames
    assert sent[34:] == bytes(2) + b"\xff\xff" + bytes(68)
