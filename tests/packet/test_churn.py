"""1,000 live flows through 50 random changes of the backends: none moves that need not."""

import random
from dataclasses import dataclass, field

import pytest

from lbfwd.forwarding import Member
from tests.oracle import maglev, siphash
from tests.packet import bench, quoted
from tests.packet.bench import NOW_MS, Bench, BenchMaker
from tests.packet.streams import OUTER_DESTINATION, Flow, flows, send
from tests.packet.test_flow_workers import long_packet
from tests.packet.test_flows import SECOND, state

FLOWS = 1000
CHANGES = 50
LEAST_USABLE = 3
TABLE = 251
STRAYING = 0.03  # of the flows, after each change


@dataclass
class Pool:
    """The backends by number: weight, and whether they can be reached."""

    weights: dict[int, int] = field(default_factory=lambda: dict.fromkeys(range(11, 25), 1))
    down: set[int] = field(default_factory=set)

    def members(self) -> list[Member]:
        return [
            bench.member(4, n, weight, paths=[] if n in self.down else None)
            for n, weight in self.weights.items()
        ]

    def may_serve(self, name: str) -> bool:
        number = int(name[1:])
        return number in self.weights and number not in self.down

    def table(self) -> list[str | None]:
        usable = {f"b{n}": w for n, w in self.weights.items() if n not in self.down}
        return maglev.table(usable, TABLE)

    def change(self, rng: random.Random) -> str:
        """One change at random; never the last backends that can be used."""
        usable = [n for n, w in self.weights.items() if w and n not in self.down]
        one = rng.choice(list(self.weights))
        can_lose = len(usable) > LEAST_USABLE
        match rng.choice(["add", "drain", "weigh", "down", "up", "remove"]):
            case "add":
                new = rng.choice([n for n in range(11, 60) if n not in self.weights])
                self.weights[new] = rng.randint(1, 5)
                return "add"
            case "drain" if can_lose:
                self.weights[one] = 0
                return "drain"
            case "down" if can_lose:
                self.down.add(one)
                return "down"
            case "remove" if can_lose:
                del self.weights[one]
                self.down.discard(one)
                return "remove"
            case "up" if self.down:
                self.down.remove(rng.choice(sorted(self.down)))
                return "up"
            case _:
                self.weights[one] = rng.randint(1, 5)
                return "weigh"


@dataclass
class Fleet:
    """Two workers: a flow's packets reach one of them, its fragments and errors any."""

    node: Bench
    rng: random.Random
    pool: Pool
    now_ms: int = NOW_MS
    moved: int = 0

    def home(self, flow: Flow) -> int:
        return flow.source % 2

    def packet(self, flow: Flow, flags: str = "A") -> str:
        return send(self.node.workers[self.home(flow)], flow.packet(flags), self.now_ms)

    def strays(self, flow: Flow) -> set[str]:
        """Where a long packet's fragments, in any order, and an ICMP error go."""
        frames = long_packet(flow, self.rng.randrange(1, 65536))
        self.rng.shuffle(frames)
        frames.append(quoted.error(4, flow.answer()))
        worker = self.node.workers[self.rng.randrange(2)]
        for frame in frames:
            worker.forward(frame, now_ms=self.now_ms)
        sent = worker.sent(0)
        assert len(sent) == len(frames)
        return {f"b{one[OUTER_DESTINATION][3]}" for one in sent}

    def publish(self) -> None:
        self.node.publish(state(self.pool.members()))
        self.node.tables.reclaim([0, 1])

    def follow(self, backends: dict[Flow, str]) -> None:
        """Every flow has a packet, some have strays; ``backends`` is where they have to go."""
        table = self.pool.table()
        for flow, backend in backends.items():
            now = self.packet(flow)
            if self.pool.may_serve(backend):
                assert now == backend, "it has moved and need not"
            else:
                assert now == table[siphash.bucket(flow.hash, TABLE)]
                self.moved += 1
            backends[flow] = now
            if self.rng.random() < STRAYING:
                assert self.strays(flow) == {now}


@pytest.mark.parametrize(("seed", "protocol"), [(1, "tcp"), (2, "udp")])
def test_no_flow_moves_that_need_not(make_bench: BenchMaker, seed: int, protocol: str) -> None:
    rng, pool = random.Random(seed), Pool()
    node = make_bench(state(pool.members()), workers=2, flows=FLOWS)
    fleet = Fleet(node, rng, pool)
    many = flows(FLOWS, protocol)
    backends = {flow: fleet.packet(flow, "S") for flow in many}
    fleet.follow(backends)
    assert fleet.moved == 0
    made = []
    for _ in range(CHANGES):
        made.append(pool.change(rng))
        fleet.publish()
        fleet.now_ms += rng.randrange(10) * SECOND
        fleet.follow(backends)
    assert set(made) == {"add", "drain", "weigh", "down", "up", "remove"}
    assert fleet.moved > 0, "somebody's backend was removed or down"
    drops = node.tables.totals().drops
    assert set(drops.values()) == {0}
