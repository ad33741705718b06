"""A node in memory: crafted bytes in, exact bytes out, and which counters moved."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar

from lbfwd import ring
from lbfwd.forwarding import FlowTimes, Forwarding, Member, PathSpec, PoolState, ServiceState
from lbfwd.tables import Count, Tables, Totals
from tests.oracle import choice, encap

SECRET = bytes.fromhex("000102030405060708090a0b0c0d0e0f")
NODE_MAC = bytes.fromhex("020000000001")
ROUTER_MAC = "02:00:00:00:00:fe"
VIP4, VIP6 = ip_address("192.0.2.10"), ip_address("2001:db8::10")
NODE = {4: ip_address("10.0.0.1"), 6: ip_address("fd00::1")}
TX = {4: 0, 6: 1}  # TX ring by the backend's family
MTU = 1500
TX_SLOTS = 64
NOW_MS = 1_000_000

Key = TypeVar("Key")


def address(family: int, number: int) -> encap.IPAddress:
    return ip_address(f"10.0.0.{number}" if family == 4 else f"fd00::{number:x}")


def path(
    family: int,
    number: int,
    *,
    tx: int | None = None,
    mtu: int = MTU,
    hop: int = 0,
    source: str | None = None,
    entropy_bits: int = 0,
    may_fragment: bool = False,
) -> PathSpec:
    """A next hop of backend ``number``; ``hop`` tells several of one backend apart."""
    return PathSpec(
        src_mac=NODE_MAC,
        dst_mac=bytes([2, 0, 0, 1, hop, number]),
        source=NODE[family] if source is None else ip_address(source),
        destination=address(family, number),
        tx=TX[family] if tx is None else tx,
        mtu=mtu,
        entropy_bits=entropy_bits,
        may_fragment=may_fragment,
    )


def member(
    family: int, number: int, weight: int = 1, paths: Sequence[PathSpec] | None = None
) -> Member:
    hops = (path(family, number),) if paths is None else tuple(paths)
    return Member(f"b{number}", address(family, number), weight, hops)


def pool(name: str, members: Sequence[Member], size: int = 251) -> PoolState:
    return PoolState(name, size, tuple(members))


def service(
    vip: encap.IPAddress,
    protocol: str,
    port: int,
    pool: str,
    *,
    affinity: str = "5-tuple",
    empty: str = "drop",
) -> ServiceState:
    return ServiceState(f"{vip}:{port}/{protocol}", vip, protocol, port, affinity, pool, empty)


def forwarding(
    services: Sequence[ServiceState],
    pools: Sequence[PoolState],
    echo: str = "reply",
    times: FlowTimes | None = None,
) -> Forwarding:
    return Forwarding(SECRET, tuple(services), tuple(pools), times or FlowTimes(), echo)


def one_service(
    members: Sequence[Member],
    vip: encap.IPAddress = VIP4,
    protocol: str = "udp",
    size: int = 251,
    **options: str,
) -> Forwarding:
    """Port 84 of one VIP, with a pool ``p``."""
    return forwarding([service(vip, protocol, 84, "p", **options)], [pool("p", members, size)])


def all_combinations(**options: Any) -> Forwarding:
    """Both VIPs, TCP and UDP: port 84 goes to IPv4 backends, port 86 to IPv6 backends."""
    return forwarding(
        [
            service(vip, protocol, 80 + family, f"p{family}")
            for vip in (VIP4, VIP6)
            for protocol in ("tcp", "udp")
            for family in (4, 6)
        ],
        [
            pool(f"p{f}", [member(f, number, number % 3 + 1) for number in range(11, 18)])
            for f in (4, 6)
        ],
        **options,
    )


@dataclass(frozen=True)
class Outcome:
    """What one frame led to: frames by TX ring, and the counters that moved."""

    sent: dict[int, list[bytes]]
    drops: dict[str, int]
    events: dict[str, int]
    services: dict[str, Count]
    backends: dict[tuple[str, str], Count]
    seen: int

    @property
    def frames(self) -> list[bytes]:
        return [frame for frames in self.sent.values() for frame in frames]

    @property
    def forwarded(self) -> int:
        return sum(count.packets for count in self.services.values())


class Bench:
    """A worker, or several on the same files, with TX rings in memory; 0 is the way back."""

    def __init__(
        self,
        directory: Path,
        state: Forwarding,
        tx_slots: int = TX_SLOTS,
        workers: int = 1,
        flows: int = 1024,
    ) -> None:
        self.tables = Tables.create(directory, workers, flows)
        self.publish(state)
        self._tx_slots = tx_slots
        self._rings = sorted({0} | {p.tx for q in state.pools for m in q.members for p in m.paths})
        self.workers = [self.new_worker(slot) for slot in range(workers)]

    def new_worker(self, slot: int) -> ring.Worker:
        """Another worker for a slot; the last one of it should be closed."""
        worker = ring.Worker(slot, *self.tables.files())
        for index in self._rings:
            worker.add_tx(index, -1, ring.tx_geometry(self._tx_slots, MTU))
        return worker

    @property
    def worker(self) -> ring.Worker:
        return self.workers[0]

    def publish(self, state: Forwarding) -> int:
        """Make another state the one in force, for the worker and for the oracle."""
        generation = self.tables.publish(state)
        self._oracle = choice.Chooser(state)
        return generation

    def close(self) -> None:
        for worker in self.workers:
            worker.close()
        self.tables.close(unlink=True)

    def forward(
        self,
        *frames: bytes,
        offload: bytes = bytes(ring.VNET_BYTES),
        now_ms: int = NOW_MS,
        worker: int = 0,
    ) -> Outcome:
        before, seen = self.tables.totals(), self.tables.slot(worker).seen
        for frame in frames:
            self.workers[worker].forward(frame, offload, now_ms)
        return self.outcome(before, seen, worker)

    def outcome(self, before: Totals, seen: int, worker: int = 0) -> Outcome:
        sent = {index: self.workers[worker].sent(index) for index in self._rings}
        after = self.tables.totals()
        return Outcome(
            {index: frames for index, frames in sent.items() if frames},
            _grown(before.drops, after.drops),
            _grown(before.events, after.events),
            _moved(before.services, after.services),
            _moved(before.backends, after.backends),
            self.tables.slot(worker).seen - seen,
        )

    def backend_of(self, *frames: bytes, worker: int = 0, now_ms: int = NOW_MS) -> str:
        """The one backend that these frames went to, nothing else being sent or dropped."""
        outcome = self.forward(*frames, worker=worker, now_ms=now_ms)
        assert outcome.drops == {}
        ((_pool, name),) = outcome.backends
        return name

    def choose(self, frame: bytes) -> tuple[ServiceState, Member, PathSpec]:
        """What the oracle says about the frame."""
        return self._oracle.choose(frame)

    def wrapped(self, frame: bytes, inner: bytes | None = None) -> tuple[int, bytes]:
        """TX ring and whole frame that the oracle expects; ``inner``: what it becomes inside."""
        _service, _member, hop = self.choose(frame)
        inner = encap.inner_packet(frame) if inner is None else inner
        return hop.tx, encap.wrapped(inner, hop.source, hop.destination, hop.src_mac, hop.dst_mac)

    def assert_forwarded(
        self,
        frame: bytes,
        outcome: Outcome,
        inners: Sequence[bytes],
        events: dict[str, int] | None = None,
    ) -> None:
        """Exactly these inner packets left as the oracle says, and exactly they were counted.

        ``events``: those that are expected, but for a flow's beginning, which counts for service
        and backend, too.
        """
        wanted = [self.wrapped(frame, inner) for inner in inners]
        assert outcome.sent == {wanted[0][0]: [data for _tx, data in wanted]}
        new = outcome.events.get("flow_new", 0)
        count = Count(len(inners), sum(map(len, inners)), new)
        chosen, backend, _hop = self.choose(frame)
        assert outcome.services == {chosen.name: count}
        assert outcome.backends == {(chosen.pool, backend.name): count}
        assert outcome.drops == {}
        assert _without_flow_new(outcome.events) == (events or {})
        assert outcome.seen == len(inners)

    def assert_dropped(self, outcome: Outcome, reason: str, packets: int = 1) -> None:
        assert outcome.drops == {reason: packets}
        assert outcome.frames == []
        assert outcome.services == {}
        assert outcome.backends == {}
        assert outcome.seen == packets

    def assert_answered(
        self, outcome: Outcome, reason: str, answer: bytes, event: str | None = None
    ) -> None:
        """The packet ended under this name, and exactly this frame went back."""
        assert outcome.sent == {0: [answer]}
        assert outcome.drops == {reason: 1}
        assert _without_flow_new(outcome.events) == ({event: 1} if event else {})
        assert outcome.services == {}
        assert outcome.seen == 1


def _without_flow_new(events: dict[str, int]) -> dict[str, int]:
    return {name: n for name, n in events.items() if name != "flow_new"}


def _grown(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {name: n - before[name] for name, n in after.items() if n != before[name]}


def _moved(before: dict[Key, Count], after: dict[Key, Count]) -> dict[Key, Count]:
    return {
        key: Count(
            count.packets - before[key].packets,
            count.bytes - before[key].bytes,
            count.new_flows - before[key].new_flows,
        )
        for key, count in after.items()
        if count.packets != before[key].packets  # a flow may begin with a packet that is dropped
    }


BenchMaker = Callable[..., Bench]
