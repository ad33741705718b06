"""A node in memory: crafted bytes in, exact bytes out, and which counters moved."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TypeVar

from lbfwd import ring
from lbfwd.forwarding import Forwarding, Member, PathSpec, PoolState, ServiceState
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

Key = TypeVar("Key")


def address(family: int, number: int) -> encap.IPAddress:
    return ip_address(f"10.0.0.{number}" if family == 4 else f"fd00::{number:x}")


def path(
    family: int, number: int, *, tx: int | None = None, mtu: int = MTU, hop: int = 0
) -> PathSpec:
    """A next hop of backend ``number``; ``hop`` tells several of one backend apart."""
    dst_mac = bytes([2, 0, 0, 1, hop, number])
    target = address(family, number)
    return PathSpec(NODE_MAC, dst_mac, NODE[family], target, TX[family] if tx is None else tx, mtu)


def member(
    family: int, number: int, weight: int = 1, paths: Sequence[PathSpec] | None = None
) -> Member:
    hops = (path(family, number),) if paths is None else tuple(paths)
    return Member(f"b{number}", address(family, number), weight, hops)


def pool(name: str, members: Sequence[Member], size: int = 251) -> PoolState:
    return PoolState(name, size, tuple(members))


def service(
    vip: encap.IPAddress, protocol: str, port: int, pool: str, affinity: str = "5-tuple"
) -> ServiceState:
    return ServiceState(f"{vip}:{port}/{protocol}", vip, protocol, port, affinity, pool)


def forwarding(services: Sequence[ServiceState], pools: Sequence[PoolState]) -> Forwarding:
    return Forwarding(SECRET, tuple(services), tuple(pools))


def all_combinations() -> Forwarding:
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
    )


@dataclass(frozen=True)
class Outcome:
    """What one frame led to: frames by TX ring, and the counters that moved."""

    sent: dict[int, list[bytes]]
    drops: dict[str, int]
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
    """One worker with TX rings in memory."""

    def __init__(self, directory: Path, state: Forwarding, tx_slots: int = TX_SLOTS) -> None:
        self.tables = Tables.create(directory, 1, 1024)
        self.worker = ring.Worker(0, *self.tables.files())
        self.publish(state)
        self._rings = sorted({p.tx for q in state.pools for m in q.members for p in m.paths})
        for index in self._rings:
            self.worker.add_tx(index, -1, ring.tx_geometry(tx_slots, MTU))

    def publish(self, state: Forwarding) -> int:
        """Make another state the one in force, for the worker and for the oracle."""
        generation = self.tables.publish(state)
        self._oracle = choice.Chooser(state)
        return generation

    def close(self) -> None:
        self.worker.close()
        self.tables.close(unlink=True)

    def forward(self, *frames: bytes, offload: bytes = bytes(ring.VNET_BYTES)) -> Outcome:
        before, seen = self.tables.totals(), self.tables.slot(0).seen
        for frame in frames:
            self.worker.forward(frame, offload)
        return self.outcome(before, seen)

    def outcome(self, before: Totals, seen: int) -> Outcome:
        sent = {index: self.worker.sent(index) for index in self._rings}
        after = self.tables.totals()
        return Outcome(
            {index: frames for index, frames in sent.items() if frames},
            {
                name: n - before.drops[name]
                for name, n in after.drops.items()
                if n != before.drops[name]
            },
            _moved(before.services, after.services),
            _moved(before.backends, after.backends),
            self.tables.slot(0).seen - seen,
        )

    def choose(self, frame: bytes) -> tuple[ServiceState, Member, PathSpec]:
        """What the oracle says about the frame."""
        return self._oracle.choose(frame)

    def wrapped(self, frame: bytes, inner: bytes | None = None) -> tuple[int, bytes]:
        """TX ring and whole frame that the oracle expects; ``inner``: what it becomes inside."""
        _service, _member, hop = self.choose(frame)
        inner = encap.inner_packet(frame) if inner is None else inner
        return hop.tx, encap.wrapped(inner, hop.source, hop.destination, hop.src_mac, hop.dst_mac)

    def assert_forwarded(self, frame: bytes, outcome: Outcome, inners: Sequence[bytes]) -> None:
        """Exactly these inner packets left as the oracle says, and exactly they were counted."""
        wanted = [self.wrapped(frame, inner) for inner in inners]
        assert outcome.sent == {wanted[0][0]: [data for _tx, data in wanted]}
        count = Count(len(inners), sum(map(len, inners)))
        chosen, backend, _hop = self.choose(frame)
        assert outcome.services == {chosen.name: count}
        assert outcome.backends == {(chosen.pool, backend.name): count}
        assert outcome.drops == {}
        assert outcome.seen == len(inners)

    def assert_dropped(self, outcome: Outcome, reason: str, packets: int = 1) -> None:
        assert outcome.drops == {reason: packets}
        assert outcome.frames == []
        assert outcome.services == {}
        assert outcome.backends == {}
        assert outcome.seen == packets


def _moved(before: dict[Key, Count], after: dict[Key, Count]) -> dict[Key, Count]:
    return {
        key: Count(count.packets - before[key].packets, count.bytes - before[key].bytes)
        for key, count in after.items()
        if count != before[key]
    }


BenchMaker = Callable[..., Bench]
