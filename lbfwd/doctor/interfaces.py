"""Checks of a node's interfaces: offloads, rings, queues, interrupts. Pure."""

from collections.abc import Iterator

from lbfwd.config.machine import ranges
from lbfwd.doctor.facts import Irq, NodeFacts, Offloads
from lbfwd.doctor.finding import Finding, broken, ok, warn
from lbfwd.supervisor.status import Status
from lbfwd.tune import rules


def offloads(facts: NodeFacts) -> Iterator[Finding]:
    """Look for super-frames: V2 rings take them the slow way, or cut."""
    if facts.config is None:
        return
    kinds = {cpu: own.ring for cpu, own in facts.config.settings_by_cpu.items()}
    v2 = [str(cpu) for cpu, kind in kinds.items() if kind == "v2"]
    for name in facts.nics:
        found = facts.offloads.get(name, Offloads())
        unwanted = rules.unwanted(found, kinds.values())
        on = [feature for feature in ("gro", "lro") if getattr(found, feature)]
        if "lro" in unwanted:
            yield warn(
                "offloads",
                f"{name}: lro is on",
                "it merges packets without a trace of what they were; segments may differ",
                f"ethtool -K {name} lro off",
            )
        elif "gro" in unwanted:
            yield warn(
                "offloads",
                f'{name}: gro is on, and ring = "v2" for the workers on cpus {", ".join(v2)}',
                "a slot of a V2 ring holds one packet; merged ones go by a slow way, or are "
                "dropped as cut_by_ring",
                f"ethtool -K {name} gro off",
            )
        else:
            yield ok("offloads", f"{name}: {', '.join(on) or 'neither gro nor lro'}")


def rings(facts: NodeFacts) -> Iterator[Finding]:
    """Count packets for which an RX ring had no room: ever, and just now."""
    if facts.status is None:
        return
    before, after = _ring_drops(facts.status), _ring_drops(facts.later or facts.status)
    fix = "lbfwd status  # more workers.cpus or rx_ring_mib, then systemctl restart lbfwd"
    for (cpu, name), total in after.items():
        at = f"{name}, worker on cpu {cpu}"
        new = total - before.get((cpu, name), 0)
        if new > 0:
            why = "the worker does not keep up: packets for the VIPs are lost at this moment"
            yield broken("ring drops", f"{at}: {new} while we looked", why, fix)
        elif total:
            why = "packets for the VIPs were lost: too large a burst, or a worker that hung"
            yield warn("ring drops", f"{at}: {total} since lbfwd was started, none now", why, fix)
    if not any(after.values()):
        yield ok("ring drops", "none")


def _ring_drops(status: Status) -> dict[tuple[int, str], int]:
    return {
        (worker.cpu, ring.interface): ring.drops
        for worker in status.workers
        for ring in worker.rings
    }


def hardware_drops(facts: NodeFacts) -> Iterator[Finding]:
    """Count packets that the network card had no room for, before anybody saw them."""
    for name, drops in facts.nic_drops.items():
        if drops:
            yield warn(
                "hardware drops",
                f"{name}: {drops} packets since it came up",
                "the card's own ring was full: its interrupts are served too late",
                f"ethtool -G {name} rx {rules.RING}",
            )
        else:
            yield ok("hardware drops", f"{name}: none")


def queues(facts: NodeFacts) -> Iterator[Finding]:
    """Compare receive queues with workers: a queue is the kernel's work on one core."""
    if facts.config is None:
        return
    workers = facts.config.workers.cpus
    for name in facts.nics:
        count = facts.hardware.queues.get(name, 0)
        spread = facts.hardware.rps_cpus.get(name, frozenset())
        if rules.too_few_queues(count, len(workers), spread):
            yield warn(
                "queues",
                f"{name}: {count} for {len(workers)} workers",
                "the cores that serve the queues do the kernel's receiving for all workers",
                f"ethtool -L {name} combined {len(workers)}",
            )
        else:
            yield ok("queues", f"{name}: {count or 'unknown'} for {len(workers)} workers")


def interrupts(facts: NodeFacts) -> Iterator[Finding]:
    """Compare where an interface's interrupts go with the workers' cores."""
    if facts.config is None:
        return
    order, fanout = facts.config.workers.cpus, facts.config.workers.fanout
    workers = frozenset(order)
    for name in facts.nics:
        used = [irq for irq in facts.irqs.get(name, ()) if irq.count]
        cpus = frozenset().union(*(irq.cpus for irq in used))
        if fanout == "cpu" and used and not cpus <= workers:
            yield warn(
                "interrupts",
                f"{name}: interrupts go to cpus {ranges(cpus)}, workers are on {ranges(workers)}",
                'with fanout = "cpu" a packet belongs to the worker of the core that received it; '
                "cores without a worker leave it to the hash",
                _placed(used, order),
            )
        elif len(cpus) == 1 and len(set(rules.places(used, order).values())) > 1:
            yield warn(
                "interrupts",
                f"{name}: all of its {len(used)} interrupts go to cpu {ranges(cpus)}",
                "one core does the receiving of all queues",
                _placed(used, order),
            )
        else:
            where = f"on cpus {ranges(cpus)}" if cpus else "none of its own"
            yield ok("interrupts", f"{name}: {where}")


def _placed(irqs: list[Irq], workers: tuple[int, ...]) -> str:
    """Return the command that gives each interrupt its place, as ``lbfwd tune`` does."""
    places = rules.places(irqs, workers).items()
    return "; ".join(f"echo {cpu} > {rules.affinity(number)}" for number, cpu in places)
