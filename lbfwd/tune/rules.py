"""What a node's kernel and network cards should be set to, and why. Pure.

The first half says what is wanted, for ``lbfwd doctor``, too; the second half makes steps of it.
docs/tuning.md and docs/deploy.md tell the same in prose. Kernel documents: networking/scaling.rst,
admin-guide/sysctl/net.rst, networking/ip-sysctl.rst.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from lbfwd.config import Config
from lbfwd.config.machine import ranges
from lbfwd.doctor.facts import Irq, Offloads
from lbfwd.tune.facts import Facts, Nic
from lbfwd.tune.step import Step, ethtool, write

Feature = Literal["lro", "gro"]

OPTMEM_BYTES = 1 << 20
NEIGHBOURS = (4096, 8192, 16384)
SYSCTLS: Mapping[str, int] = {
    "core/optmem_max": OPTMEM_BYTES,
    **{
        f"ipv{version}/neigh/default/gc_thresh{number}": value
        for version in (4, 6)
        for number, value in enumerate(NEIGHBOURS, start=1)
    },
}
"""The least values, as in deploy/sysctl-node.conf."""
RING = 4096
_QUEUE = re.compile(r"(?:rx|tx|txrx|input|output|queue|comp)[-_.]?(\d+)", re.IGNORECASE)


def unwanted(offloads: Offloads, rings: Collection[str]) -> tuple[Feature, ...]:
    """Return the offloads that are on and should not be. ``rings``: the workers' kinds of ring.

    LRO merges packets without a trace of what they were. A slot of a V2 ring holds one packet, so
    that those which GRO has merged take a slow way.
    """
    lro: tuple[Feature, ...] = ("lro",) if offloads.lro else ()
    gro: tuple[Feature, ...] = ("gro",) if offloads.gro and "v2" in rings else ()
    return lro + gro


def wanted_queues(now: int, most: int, workers: int) -> int:
    """Return how many receive queues there should be: a multiple of the workers, if that can be.

    A queue is the kernel's work on one core.
    """
    return now if now and now % workers == 0 else min(workers, most) or now


def too_few_queues(queues: int, workers: int, spread: Collection[int]) -> bool:
    """Whether fewer cores receive than forward. ``spread``: where packet steering takes packets."""
    return 0 < queues < workers and len(spread) < workers


def wanted_spread(queues: int, workers: Collection[int]) -> frozenset[int]:
    """Return where packet steering (RPS) should take packets to: nowhere, if the queues will do."""
    return frozenset(workers) if 0 < queues < len(workers) else frozenset()


def places(irqs: Sequence[Irq], workers: Sequence[int]) -> dict[int, int]:
    """Return the cpu that each interrupt should go to: a queue's all to one worker's.

    Those that are neither a queue's, by their name, nor in use are left where they are.
    """
    found: dict[int, int] = {}
    for irq in irqs:
        numbers = _QUEUE.findall(irq.name)
        if numbers or irq.count:
            place = int(numbers[-1]) if numbers else len(found)
            found[irq.number] = workers[place % len(workers)]
    return found


def wanted_ring(now: int, most: int) -> int:
    """Return how many receive descriptors a queue should have: never fewer than it has."""
    return max(now, min(most, RING))


# ---- steps


def sysctls(_config: Config, facts: Facts) -> Iterator[Step]:
    """Raise what is too low."""
    why = {"core": "room for the filter of the VIPs", "neig": "backends are neighbours"}
    for path, least in SYSCTLS.items():
        now = facts.sysctls.get(path)
        if now is not None and now < least:
            reason = why["core" if path.startswith("core") else "neig"]
            name, file = f"net.{path.replace('/', '.')}", f"/proc/sys/net/{path}"
            yield write(name, file, (str(now), str(least)), reason)


def queues(config: Config, facts: Facts) -> Iterator[Step]:
    """Have as many receive queues as workers."""
    workers = len(config.workers.cpus)
    for nic in facts.nics:
        now = nic.queues.now
        if now and (new := wanted_queues(now, nic.queues.most, workers)) != now:
            why = f"{workers} workers: a queue is the kernel's work on one core"
            arguments = ("-L", nic.name, nic.queue_kind)
            yield ethtool(f"{nic.name}: receive queues", arguments, (str(now), str(new)), why)


def with_queues(config: Config, facts: Facts) -> Facts:
    """Return the facts when ``queues`` is done."""
    workers = len(config.workers.cpus)

    def settled(nic: Nic) -> Nic:
        wanted = wanted_queues(nic.queues.now, nic.queues.most, workers)
        return replace(nic, queues=replace(nic.queues, now=wanted)) if nic.queues.now else nic

    return replace(facts, nics=tuple(map(settled, facts.nics)))


def steering(config: Config, facts: Facts) -> Iterator[Step]:
    """Switch packet steering off where queues will do, and on where they will not."""
    for nic in facts.nics:
        wanted = wanted_spread(nic.queues.now, config.workers.cpus)
        for file, now in nic.rps.items():
            if now != wanted:
                queue = file.split("/")[-2]
                why = (
                    f"{nic.queues.now} queues for {len(config.workers.cpus)} workers"
                    if wanted
                    else "each queue has a core of its own; another hand-over costs time"
                )
                what = f"{nic.name}: packet steering (RPS) of {queue} to cpus"
                yield write(what, file, (mask(now), mask(wanted)), why)


def interrupts(config: Config, facts: Facts) -> Iterator[Step]:
    """Have each queue's interrupt on a worker's core."""
    for nic in facts.nics:
        wanted = places(nic.irqs, config.workers.cpus)
        for irq in nic.irqs:
            cpu = wanted.get(irq.number)
            if cpu is not None and irq.cpus != {cpu}:
                what = f"{nic.name}: interrupt {irq.number} {irq.name}".rstrip() + " on cpus"
                yield write(what, affinity(irq.number), (ranges(irq.cpus), str(cpu)),
                            "packets are received on the core that forwards them")  # fmt: skip


def rings(_config: Config, facts: Facts) -> Iterator[Step]:
    """Give the cards room for bursts."""
    for nic in facts.nics:
        now = nic.ring.now
        if now and (new := wanted_ring(now, nic.ring.most)) != now:
            yield ethtool(
                f"{nic.name}: receive descriptors",
                ("-G", nic.name, "rx"),
                (str(now), str(new)),
                "room for what comes while the core is busy",
            )


def offloads(config: Config, facts: Facts) -> Iterator[Step]:
    """Switch off what merges packets, where it harms."""
    kinds = {own.ring for own in config.settings_by_cpu.values()}
    why = {
        "lro": "it merges packets without a trace of what they were",
        "gro": 'a slot of ring = "v2" holds one packet; merged ones take a slow way',
    }
    for nic in facts.nics:
        for feature in unwanted(nic.offloads or Offloads(), kinds):
            arguments = ("-K", nic.name, feature)
            yield ethtool(f"{nic.name}: {feature}", arguments, ("on", "off"), why[feature])


RULES: tuple[Callable[[Config, Facts], Iterator[Step]], ...] = (
    sysctls,
    queues,  # before what is done with each queue
    rings,
    offloads,
    steering,
    interrupts,
)


def affinity(irq: int) -> str:
    """Return the file that says where an interrupt goes."""
    return f"/proc/irq/{irq}/smp_affinity_list"


def mask(cpus: Collection[int]) -> str:
    """Write a cpu mask as the kernel reads it: hex digits, a comma between words of 32 bits."""
    bits = sum(1 << cpu for cpu in cpus)
    words = [f"{bits & 0xFFFFFFFF:x}"]
    while bits := bits >> 32:
        words[-1] = words[-1].zfill(8)
        words.append(f"{bits & 0xFFFFFFFF:x}")
    return ",".join(reversed(words))
