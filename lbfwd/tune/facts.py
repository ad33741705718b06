"""What the rules of tuning look at: plain values. What is 0, empty or None is not known."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from lbfwd.doctor.facts import Irq, Offloads


@dataclass(frozen=True)
class Count:
    """How many there are of something, and how many there can be."""

    now: int = 0
    most: int = 0


@dataclass(frozen=True)
class Nic:
    """A network card, or what stands for one: it lies under no other interface.

    ``queues``: receive queues; ``queue_kind``: how ethtool -L calls them, ``combined`` or ``rx``.
    ``ring``: receive descriptors a queue. ``rps``: cpus that receive packet steering takes packets
    to, by file.
    """

    name: str
    queues: Count = Count()
    queue_kind: str = "combined"
    ring: Count = Count()
    offloads: Offloads | None = None
    irqs: tuple[Irq, ...] = ()
    rps: Mapping[str, frozenset[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Facts:
    """``nics``: those under the node's interfaces. ``sysctls``: by path below /proc/sys/net."""

    nics: tuple[Nic, ...] = ()
    sysctls: Mapping[str, int] = field(default_factory=dict)
