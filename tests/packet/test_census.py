"""Live flows are counted by service and backend, each once, for as long as they live."""

import time
from collections import Counter
from dataclasses import replace
from ipaddress import ip_address

from lbfwd.forwarding import FlowTimes, Forwarding
from lbfwd.snapshot import BackendKey
from lbfwd.tables import FlowKey
from tests.packet import bench
from tests.packet.bench import VIP4, Bench, BenchMaker
from tests.packet.crafted import ip, raw, transport

STATE = bench.forwarding(
    [bench.service(VIP4, "tcp", 0, "p"), bench.service(VIP4, "udp", 84, "q")],
    [
        bench.pool("p", [bench.member(4, n) for n in (11, 12, 13)]),
        bench.pool("q", [bench.member(4, n) for n in (11, 12)]),
    ],
)
TIMES = FlowTimes()


def packet(protocol: str, port: int, flags: str = "A") -> bytes:
    fields = {"sport": port} | ({"flags": flags} if protocol == "tcp" else {})
    return raw(ip(4), transport(protocol, **fields), b"hello")


def key(node: Bench, data: bytes) -> FlowKey:
    """What the oracle says about a flow, as the census names it."""
    service, member, _path = node.choose(data)
    backend: BackendKey = (service.pool, member.name, member.address)
    return (service.vip, service.protocol, service.port), backend


def now_ms(ago_s: float = 0.0) -> int:
    return int((time.monotonic() - ago_s) * 1000)


def count(node: Bench) -> tuple[Counter[FlowKey], Counter[FlowKey]]:
    found = node.tables.live_flows(node.tables.seats(), TIMES)
    return (
        Counter({key: count.live for key, count in found.items()}),
        +Counter({key: count.closing for key, count in found.items()}),
    )


def test_each_flow_is_counted_where_it_is(make_bench: BenchMaker) -> None:
    node = make_bench(STATE, workers=2)
    packets = [packet(p, port) for p in ("tcp", "udp") for port in range(1000, 1200)]
    for number, data in enumerate(packets):
        node.forward(data, data, now_ms=now_ms(), worker=number % 2)
    assert count(node) == (Counter(key(node, data) for data in packets), Counter())


def test_a_flow_that_went_to_another_worker_is_one_flow(make_bench: BenchMaker) -> None:
    node = make_bench(STATE, workers=2)
    packets = [packet("udp", port) for port in range(1000, 1100)]
    for ago_s, worker in ((3, 0), (3, 1), (1, 0), (0, 1)):  # in one second, and later
        for data in packets:
            node.forward(data, now_ms=now_ms(ago_s), worker=worker)
        assert count(node)[0] == Counter(key(node, data) for data in packets)


def test_flows_that_have_seen_an_end_are_told(make_bench: BenchMaker) -> None:
    node = make_bench(STATE)
    packets = [packet("tcp", port) for port in range(1000, 1100)]
    ends = [packet("tcp", port, "FA") for port in range(1000, 1030)]
    for data in (*packets, *packets, *ends):
        node.forward(data, now_ms=now_ms())
    live, closing = count(node)
    assert live == Counter(key(node, data) for data in packets)
    assert closing == Counter(key(node, data) for data in ends)


def test_what_was_not_seen_for_long_does_not_live(make_bench: BenchMaker) -> None:
    node = make_bench(STATE)
    old, young = packet("udp", 1000), packet("udp", 1001)
    for data, ago_s in ((old, TIMES.udp_idle_s + 3), (young, TIMES.udp_idle_s - 30)):
        node.forward(data, data, now_ms=now_ms(ago_s))
    unconfirmed = packet("udp", 1002), packet("udp", 1003)
    node.forward(unconfirmed[0], now_ms=now_ms(TIMES.unconfirmed_s + 3))
    node.forward(unconfirmed[1], now_ms=now_ms(TIMES.unconfirmed_s - 10))
    expected = Counter(key(node, data) for data in (young, unconfirmed[1]))
    assert count(node)[0] == expected


def test_how_full_each_workers_table_is(make_bench: BenchMaker) -> None:
    """By entries: a flow that went to another worker has one in each; the old ones do not count."""
    node = make_bench(STATE, workers=2)
    for port in range(2000, 2010):
        node.forward(packet("udp", port), now_ms=now_ms(TIMES.unconfirmed_s + 3))
    assert node.tables.flows_in_use(TIMES) == (0, 0)
    packets = [packet("udp", port) for port in range(1000, 1100)]
    for data in packets:
        node.forward(data, now_ms=now_ms())
    for data in packets[:30]:
        node.forward(data, now_ms=now_ms(), worker=1)
    assert node.tables.flows_in_use(TIMES) == (100, 30)


def test_flows_of_what_is_not_configured_any_more_are_left_out(make_bench: BenchMaker) -> None:
    node = make_bench(STATE)
    packets = [packet(p, port) for p in ("tcp", "udp") for port in range(1000, 1100)]
    for data in packets:
        node.forward(data, now_ms=now_ms())
    before = Counter(key(node, data) for data in packets)
    node.publish(moved(STATE))
    gone = ("p", "b13", ip_address("10.0.0.13"))
    assert count(node)[0] == Counter(
        {k: n for k, n in before.items() if k[0][1] == "tcp" and k[1] != gone}
    )


def moved(state: Forwarding) -> Forwarding:
    """One service less; and one backend has another address: its slot is another one's now."""
    p, q = state.pools
    members = tuple(replace(m, address=ip_address("10.0.0.99")) if m.name == "b13" else m
                    for m in p.members)  # fmt: skip
    return replace(state, services=state.services[:1], pools=(replace(p, members=members), q))


def test_many_services_and_backends_find_room(make_bench: BenchMaker) -> None:
    """More rows than the first try has room for."""
    services = [bench.service(VIP4, "udp", port, "p") for port in range(1, 601)]
    pools = [bench.pool("p", [bench.member(4, n) for n in range(11, 31)])]
    node = make_bench(bench.forwarding(services, pools), flows=16384)
    packets = [
        raw(ip(4), transport("udp", sport=port, dport=dport), b"x")
        for port in range(1000, 1003)
        for dport in range(1, 601)
    ]
    for data in packets:
        node.worker.forward(data, now_ms=now_ms())
        node.worker.sent(0)
    expected = Counter(key(node, data) for data in packets)
    assert len(expected) > 1024
    assert count(node)[0] == expected


def test_backends_that_came_later_are_named(make_bench: BenchMaker) -> None:
    """Who has which slot is kept until that changes."""
    node = make_bench(STATE)
    assert count(node) == (Counter(), Counter())
    pools = [bench.pool(pool.name, [bench.member(4, 90)]) for pool in STATE.pools]
    node.publish(bench.forwarding(STATE.services, pools))
    packets = [packet("udp", port) for port in range(1000, 1010)]
    for data in packets:
        node.forward(data, now_ms=now_ms())
    assert count(node)[0] == Counter(key(node, data) for data in packets)
