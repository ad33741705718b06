"""A flow keeps its backend whatever happens to the tables, while that may serve it."""

from collections.abc import Callable, Sequence

import pytest

from lbfwd.forwarding import FlowTimes, Forwarding, Member
from tests.oracle.choice import Chooser
from tests.packet import bench
from tests.packet.bench import NOW_MS, VIP4, Bench, BenchMaker
from tests.packet.crafted import ethernet, frame, ip, raw, transport
from tests.packet.streams import Flow, flows, send

PROTOCOLS = ("tcp", "udp")
NUMBERS = range(11, 18)
HEAVY = [bench.member(4, n, weight=500) for n in range(50, 70)]
"""With them in the pool, nearly every flow's choice by the table is another."""
SECOND = 1000


def members(**changed: Member) -> list[Member]:
    return [changed.get(f"b{n}", bench.member(4, n)) for n in NUMBERS]


def state(backends: Sequence[Member], **options: str) -> Forwarding:
    services = [bench.service(VIP4, protocol, 84, "p", **options) for protocol in PROTOCOLS]
    return bench.forwarding(services, [bench.pool("p", backends)])


def timed(backends: Sequence[Member], times: FlowTimes) -> Forwarding:
    plain = state(backends)
    return Forwarding(plain.hash_key, plain.services, plain.pools, times)


@pytest.fixture
def node(make_bench: BenchMaker) -> Bench:
    return make_bench(state(members()))


def chosen(forwarding: Forwarding, flow: Flow) -> str:
    return Chooser(forwarding).choose(flow.packet())[1].name


def begin(node: Bench, many: Sequence[Flow], now_ms: int = NOW_MS) -> dict[Flow, str]:
    """Two packets of each: it is confirmed, at the backend that the table names."""
    began = {flow: send(node.worker, flow.packet("S"), now_ms) for flow in many}
    assert all(send(node.worker, flow.packet(), now_ms) == began[flow] for flow in many)
    return began


CHANGES: dict[str, Callable[[str], list[Member]]] = {
    "others come": lambda _mine: [*members(), *HEAVY],
    "it drains": lambda mine: members(**{mine: bench.member(4, int(mine[1:]), weight=0)}),
    "it drains, and others come": lambda mine: [
        *members(**{mine: bench.member(4, int(mine[1:]), weight=0)}),
        *HEAVY,
    ],
    "others are weighted": lambda mine: [
        bench.member(4, n, weight=1 if f"b{n}" == mine else 1000) for n in NUMBERS
    ],
    "others fail": lambda mine: [
        bench.member(4, n, paths=None if f"b{n}" == mine else []) for n in NUMBERS
    ],
    "all others go": lambda mine: [bench.member(4, int(mine[1:]))],
    "its next hop changes": lambda mine: [
        *members(
            **{mine: bench.member(4, int(mine[1:]), paths=[bench.path(4, int(mine[1:]), hop=9)])}
        ),
        *HEAVY,
    ],
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("change", CHANGES)
def test_a_flow_keeps_its_backend(node: Bench, change: str, protocol: str) -> None:
    for flow in flows(30, protocol):
        node.publish(state(members()))
        (mine,) = set(begin(node, [flow]).values())
        node.publish(state(CHANGES[change](mine)))
        assert node.backend_of(flow.packet(), flow.packet("PA")) == mine


def test_and_the_table_alone_would_move_it() -> None:
    """Or the test above would show nothing."""
    before, after = state(members()), state([*members(), *HEAVY])
    moved = [flow for flow in flows(30) if chosen(before, flow) != chosen(after, flow)]
    assert len(moved) >= 28


@pytest.mark.parametrize("family", [4, 6])
def test_both_families(make_bench: BenchMaker, family: int) -> None:
    vip = VIP4 if family == 4 else bench.VIP6
    node = make_bench(bench.one_service(members(), vip))
    packet = frame(family, "udp")
    before = node.backend_of(packet, packet)
    node.publish(bench.one_service([*members(), *HEAVY], vip))
    assert node.choose(packet)[1].name != before
    assert node.backend_of(packet) == before


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("gone", ["down", "removed"])
def test_it_goes_to_the_tables_choice_when_its_backend_is_gone(
    node: Bench, gone: str, protocol: str
) -> None:
    for flow in flows(10, protocol):
        node.publish(state(members()))
        (mine,) = set(begin(node, [flow]).values())
        left = [m for m in members() if m.name != mine]
        if gone == "down":
            left.append(bench.member(4, int(mine[1:]), paths=[]))
        node.publish(state(left))
        outcome = node.forward(flow.packet())
        now = node.choose(flow.packet())[1].name
        assert list(outcome.backends) == [("p", now)]
        assert outcome.events == {"flow_redirected": 1}
        node.publish(state([*members(), *HEAVY]))  # its old backend among them: too late
        assert node.backend_of(flow.packet()) == now


def test_a_backend_that_comes_back_before_the_next_packet(node: Bench) -> None:
    (flow,) = flows(1)
    (mine,) = begin(node, [flow]).values()
    node.publish(state(members(**{mine: bench.member(4, int(mine[1:]), paths=[])})))
    node.publish(state([*members(), *HEAVY]))
    assert node.backend_of(flow.packet()) == mine


def test_a_slot_that_is_used_again_inherits_nothing(node: Bench) -> None:
    node.publish(state([bench.member(4, 11), bench.member(4, 12)]))
    began = begin(node, flows(60))
    node.publish(state([bench.member(4, 12)]))
    after = state([bench.member(4, 12), bench.member(4, 13)])  # 13 has the slot of 11
    node.publish(after)
    wanted = {flow: chosen(after, flow) for flow, backend in began.items() if backend == "b11"}
    assert set(wanted.values()) == {"b12", "b13"}, "both are tried"
    assert {flow: send(node.worker, flow.packet()) for flow in wanted} == wanted


def test_the_same_address_in_another_pool_is_another_backend(node: Bench) -> None:
    """The service changes its pool: what is not in the new one is no choice."""
    flow = flows(1)[0]
    (mine,) = begin(node, [flow]).values()
    services = [bench.service(VIP4, "tcp", 84, "q")]
    pools = [bench.pool("p", members()), bench.pool("q", [bench.member(4, 60)])]
    node.publish(bench.forwarding(services, pools))
    assert mine != "b60"
    assert node.backend_of(flow.packet()) == "b60"


def test_two_services_of_a_vip_share_no_entry(make_bench: BenchMaker) -> None:
    """With source affinity their keys would be the same, were the service no part of them."""

    def both(backends: Sequence[Member]) -> Forwarding:
        services = [bench.service(VIP4, "tcp", port, "p", affinity="source") for port in (80, 81)]
        return bench.forwarding(services, [bench.pool("p", backends)])

    node = make_bench(both(members()))
    one, other = (frame(4, "tcp", port=port) for port in (80, 81))
    before = node.backend_of(one, one)
    node.publish(both([*members(), *HEAVY]))
    assert node.backend_of(one) == before
    assert node.backend_of(other) == node.choose(other)[1].name != before


def test_source_affinity_is_kept_over_changes_and_connections(make_bench: BenchMaker) -> None:
    """One entry stands for all connections of a client: no SYN or FIN ends it."""
    node = make_bench(state(members(), affinity="source"))
    packet = raw(ip(4), transport("tcp", flags="A"))
    before = node.backend_of(packet, packet)
    node.publish(state([*members(), *HEAVY], affinity="source"))
    for sport, flags in ((1, "S"), (1, "A"), (2, "S"), (1, "FA"), (3, "S"), (2, "R"), (4, "S")):
        again = raw(ip(4), transport("tcp", flags=flags, sport=sport))
        assert node.backend_of(again) == before


# ---- how a TCP connection begins and ends ----


@pytest.mark.parametrize("end", ["FA", "R", "RA"])
def test_ports_that_are_used_again_begin_anew(node: Bench, end: str) -> None:
    flow = flows(1)[0]
    (mine,) = begin(node, [flow]).values()
    node.publish(state([*members(), *HEAVY]))
    assert node.backend_of(flow.packet(end), flow.packet("A")) == mine, "its last packets"
    outcome = node.forward(flow.packet("S"))
    now = node.choose(flow.packet())[1].name
    assert now != mine
    assert list(outcome.backends) == [("p", now)]
    assert outcome.events == {"flow_new": 1}
    assert node.backend_of(flow.packet("A")) == now


@pytest.mark.parametrize("flags", ["S", "SEC", "SA"])
def test_a_syn_of_a_live_flow_ends_nothing(node: Bench, flags: str) -> None:
    """It is retransmitted, or somebody else made it up."""
    flow = flows(1)[0]
    (mine,) = begin(node, [flow]).values()
    node.publish(state([*members(), *HEAVY]))
    assert node.backend_of(flow.packet(flags), flow.packet("A")) == mine


TIMES = FlowTimes(unconfirmed_s=7, tcp_idle_s=100, tcp_closing_s=13, udp_idle_s=50)
LIVES = [
    ("tcp", ("S",), 7),
    ("udp", ("",), 7),
    ("tcp", ("S", "A"), 100),
    ("udp", ("", ""), 50),
    ("tcp", ("S", "A", "FA"), 13),
    ("tcp", ("S", "A", "R"), 13),
    ("tcp", ("S", "A", "FA", "A"), 13),
    ("tcp", ("A",), 7),
]


@pytest.mark.parametrize("start_s", [1000, 65_530, 65_536 * 3 - 1])
@pytest.mark.parametrize(("protocol", "packets", "life_s"), LIVES)
def test_how_long_an_entry_lives_unseen(
    node: Bench, protocol: str, packets: tuple[str, ...], life_s: int, start_s: int
) -> None:
    """To the second, also where the 16-bit clock of the entries wraps around."""
    for later_s, kept in ((life_s, True), (life_s + 1, False)):
        node.publish(timed(members(), TIMES))
        flow = Flow(0x0B000001 + later_s, protocol=protocol)
        mine = {send(node.worker, flow.packet(p), start_s * SECOND) for p in packets}
        node.publish(timed([*members(), *HEAVY], TIMES))
        now = node.backend_of(flow.packet("A"), now_ms=(start_s + later_s) * SECOND + 999)
        assert ({now} == mine) == kept


def test_every_packet_makes_it_young_again(node: Bench) -> None:
    node.publish(timed(members(), TIMES))
    flow = flows(1, "udp")[0]
    (mine,) = begin(node, [flow]).values()
    node.publish(timed([*members(), *HEAVY], TIMES))
    for step in range(1, 20):
        now_ms = NOW_MS + step * TIMES.udp_idle_s * SECOND
        assert node.backend_of(flow.packet(), now_ms=now_ms) == mine


def test_an_old_entry_does_not_come_back_with_the_clock(node: Bench) -> None:
    """65,536 s later its 16-bit time looks young: it was swept away before."""
    flow = flows(1)[0]
    (mine,) = begin(node, [flow]).values()
    node.publish(state([*members(), *HEAVY]))
    assert node.choose(flow.packet())[1].name != mine
    for second in range(900 + 1801):
        node.worker.forward(b"", now_ms=NOW_MS + second * SECOND)
    assert node.backend_of(flow.packet(), now_ms=NOW_MS + 65_536 * SECOND) != mine


def test_and_without_being_swept_it_would(node: Bench) -> None:
    """What the sweep is for."""
    flow = flows(1)[0]
    (mine,) = begin(node, [flow]).values()
    node.publish(state([*members(), *HEAVY]))
    assert node.backend_of(flow.packet(), now_ms=NOW_MS + 65_536 * SECOND) == mine


def test_a_packet_that_is_dropped_makes_no_entry(node: Bench) -> None:
    for data in (
        frame(4, "tcp", port=85),
        bytes(ethernet() / ip(4, dst="192.0.2.11") / transport("tcp")),
        raw(ip(4, proto=47)),
    ):
        assert node.forward(data).events == {}
