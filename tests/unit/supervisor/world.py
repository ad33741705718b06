"""Stand-ins for the parts of a node: the network, and what a pass does to it, by name."""

from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from lbfwd.net.links import Link
from lbfwd.net.resolve import Resolution
from lbfwd.supervisor.ports import Present
from lbfwd.tables import TablesError
from tests.unit.supervisor.build import hop, link, resolved

ETH0, ETH1 = link("eth0", 2), link("eth1", 3)
A, B = ip_address("10.0.0.1"), ip_address("10.0.0.2")


@dataclass(eq=False)
class Ring:
    """Stands for a Receiver or Transmitter."""

    link: Link
    index: int

    @property
    def attachment(self) -> Any:
        return self


@dataclass
class World:
    """The network, and everything that a pass does, by name."""

    links: dict[str, Link] = field(default_factory=lambda: {"eth0": ETH0, "eth1": ETH1})
    found: dict[Any, Resolution] = field(
        default_factory=lambda: {a: resolved(hop(str(a), ETH1)) for a in (A, B)}
    )
    done: list[str] = field(default_factory=list)
    rings: list[Ring] = field(default_factory=list)
    published: list[Any] = field(default_factory=list)
    failing: set[str] = field(default_factory=set)
    renewed: list[Any] = field(default_factory=list)
    guarded: bool = False

    def do(self, name: str) -> None:
        self.done.append(name)
        if name in self.failing:
            raise TablesError(name) if name == "publish" else OSError(5, name)


class Net:
    def __init__(self, world: World) -> None:
        self.world = world

    def links(self) -> dict[str, Link]:
        return self.world.links

    def resolve(self, backends: set[Any], _sources: Any) -> dict[Any, Resolution]:
        return {to: self.world.found[to] for to in backends}


class Tables:
    def __init__(self, world: World) -> None:
        self.world = world

    def publish(self, forwarding: Any) -> int:
        self.world.do("publish")
        self.world.published.append(forwarding)
        return len(self.world.published)

    def acknowledged(self, _generation: int, _slots: Any) -> bool:
        return True

    def reclaim(self, _slots: Any) -> None:
        self.world.do("reclaim")


class Crew:
    def __init__(self, world: World) -> None:
        self.world = world

    async def align(self, _wanted: Any) -> None:
        self.world.do("align")

    async def renew(self, settings: Any) -> None:
        self.world.do("renew")
        self.world.renewed.append(settings)

    def alive(self) -> frozenset[int]:
        return frozenset({0, 1})

    running = alive


class Ports:
    def __init__(self, world: World) -> None:
        self.world = world

    receivers: tuple[Ring, ...] = ()
    shape: tuple[Any, str] = ({}, "hash")

    def reshape(self, settings: Any, fanout: str) -> None:
        self.shape = (settings, fanout)

    def present(self) -> Present:
        return Present(*self.shape, tuple(self.world.rings))  # type: ignore[arg-type]

    def go_back(self, before: Present) -> list[Ring]:
        self.reshape(before.settings, before.fanout)
        opened = [ring for ring in self.world.rings if ring not in before.rings]
        self.forget(opened)
        return opened

    def successions(self) -> list[Any]:
        return []

    @property
    def transmitters(self) -> list[Ring]:
        return self.world.rings

    async def open(self, _receive: Any, send: list[Link]) -> tuple[str, ...]:
        self.world.done.append("open")
        if "open" in self.world.failing:
            return ("eth1: no memory",)
        for index, wanted in enumerate(send):
            if not any(ring.link.ifindex == wanted.ifindex for ring in self.world.rings):
                self.world.rings.append(Ring(wanted, index))
        return ()

    def attachments(self) -> tuple[Any, ...]:
        return ()

    def tx_indexes(self) -> dict[int, int]:
        return {ring.link.ifindex: ring.index for ring in self.world.rings}

    def refresh(self, _links: Any) -> None:
        pass

    def distrust(self) -> None:
        self.world.done.append("distrust")

    async def steer(self, _alive: Any) -> None:
        self.world.do("steer")

    async def admit(self, vips: Any, _peers: Any) -> None:
        self.world.do(f"admit {len(vips)}")

    def forget(self, rings: list[Ring]) -> None:
        self.world.rings = [ring for ring in self.world.rings if ring not in rings]

    async def close(self, rings: list[Ring]) -> None:
        self.world.do("close " + " ".join(ring.link.name for ring in rings))

    def count(self) -> None:
        pass
