"""Settings of workers that cannot work together, or work against each other: a table of rules.

A rule gets the configuration and the machine, and yields what an operator should look at, each
with its place and what to do. docs/tuning.md has the figures behind them.
"""

from collections.abc import Callable, Iterator
from itertools import combinations

from lbfwd.config.hardware import Hardware
from lbfwd.config.machine import ranges
from lbfwd.config.model import Config, WorkerSettings
from lbfwd.config.problem import Finding, Location, show

Rule = Callable[[Config, Hardware], Iterator[Finding]]

REPLACEMENT_MS = 250  # and more, from a death until another reads the ring: bench/tuning.py
FLOW_BYTES = 24
TX_FRAME_BYTES = 2048  # a slot of a TX ring, for an MTU of 1500
BURST = 64  # LBFWD_BURST in _ring.h
TX_BURSTS = 8
_V3_ONLY = ("rx_block_kib", "rx_retire_ms")


def worker_warnings(config: Config, hardware: Hardware) -> tuple[Finding, ...]:
    """Return what the rules find, each thing once: workers share what ``[workers]`` says."""
    found = (finding for rule in RULES for finding in rule(config, hardware))
    return tuple(dict.fromkeys(found))


def _each(config: Config) -> Iterator[tuple[int, WorkerSettings]]:
    yield from config.settings_by_cpu.items()


def _place(config: Config, cpu: int, key: str) -> Location:
    """Return where a worker's key is set (or would be): its ``[[worker]]``, or ``[workers]``."""
    for index, worker in enumerate(config.own_settings):
        if worker.cpu == cpu and key in worker.own():
            return ("worker", index, key)
    return ("workers", key)


def _keys_without_effect(config: Config, _hardware: Hardware) -> Iterator[Finding]:
    for key in _V3_ONLY:
        rule = f'no effect with ring = "v2", which hands over each packet at once; leave {key} out'
        used = {_place(config, cpu, key) for cpu, own in _each(config) if own.ring == "v3"}
        if key not in config.workers.model_fields_set:
            used.add(("workers", key))
        for cpu, own in _each(config):
            place = _place(config, cpu, key)
            if place not in used:
                yield Finding(place, show(getattr(own, key)), rule)


def _rings_shorter_than_a_replacement(config: Config, _hardware: Hardware) -> Iterator[Finding]:
    for cpu, own in _each(config):
        blocks = own.rx_ring_mib * 1024 // own.rx_block_kib
        span_ms = blocks * own.rx_retire_ms
        if own.ring == "v3" and span_ms < REPLACEMENT_MS:
            rule = (
                f"{blocks} blocks (rx_ring_mib / rx_block_kib) of rx_retire_ms = {own.rx_retire_ms}"
                f" are full after {span_ms} ms, however few packets come; replacing a worker that"
                f" died may take {REPLACEMENT_MS} ms: smaller blocks, or a larger ring"
            )
            yield Finding(_place(config, cpu, "rx_block_kib"), show(own.rx_block_kib), rule)


def _short_tx_rings(config: Config, _hardware: Hardware) -> Iterator[Finding]:
    for cpu, own in _each(config):
        if own.tx_ring_frames < TX_BURSTS * BURST:
            rule = (
                f"less than {TX_BURSTS} bursts of {BURST}: a slot is in use until the NIC has sent"
                f" its frame, and packets that find none are dropped; {TX_BURSTS * BURST} or more"
            )
            yield Finding(_place(config, cpu, "tx_ring_frames"), show(own.tx_ring_frames), rule)


def _polling_leaves_no_cpu(config: Config, hardware: Hardware) -> Iterator[Finding]:
    polling = [cpu for cpu, own in _each(config) if own.busy_poll_us]
    if polling and hardware.supervisor_cpus and hardware.supervisor_cpus <= set(polling):
        own = config.settings_by_cpu[polling[0]]
        rule = (
            f"workers poll on every cpu that the supervisor may use"
            f" ({ranges(hardware.supervisor_cpus)}), so it answers late; leave a cpu out of"
            " workers.cpus, or poll on fewer"
        )
        yield Finding(_place(config, polling[0], "busy_poll_us"), show(own.busy_poll_us), rule)


def _polling_for_blocks(config: Config, _hardware: Hardware) -> Iterator[Finding]:
    for cpu, own in _each(config):
        if own.ring == "v3" and 0 < own.busy_poll_us < own.rx_retire_ms * 1000:
            rule = (
                'a block of ring = "v3" that is not full is handed over after rx_retire_ms ='
                f" {own.rx_retire_ms}, so polling for less gains next to nothing;"
                ' for latency use ring = "v2"'
            )
            yield Finding(_place(config, cpu, "busy_poll_us"), show(own.busy_poll_us), rule)


def _workers_on_cpu_0(config: Config, hardware: Hardware) -> Iterator[Finding]:
    free = sorted(hardware.cpus - set(config.workers.cpus))
    if 0 in config.workers.cpus and free:
        rule = (
            "cpu 0 does most of the kernel's own work (timers, interrupts without a place), which"
            f" delays its worker; cpu {free[0]} has none"
        )
        yield Finding(("workers", "cpus"), show(config.workers.cpus), rule)


def _workers_on_one_core(config: Config, hardware: Hardware) -> Iterator[Finding]:
    for first, second in combinations(config.workers.cpus, 2):
        if second in hardware.siblings.get(first, ()):
            rule = (
                f"cpus {first} and {second} are threads of one core (SMT): two workers there"
                " forward little more than one; one worker a core"
            )
            yield Finding(("workers", "cpus"), show(config.workers.cpus), rule)


def _queues_and_workers(config: Config, hardware: Hardware) -> Iterator[Finding]:
    cpus = config.workers.cpus
    for name in config.node.interfaces:
        queues = hardware.queues.get(name, 0)
        if config.workers.fanout != "queue" or not queues or queues % len(cpus) == 0:
            continue
        what = (
            f"no packets for the workers on cpus {ranges(cpus[queues:])}"
            if queues < len(cpus)
            else "some workers get the packets of more queues than others"
        )
        rule = (
            f"{name} has {queues} receive queues for {len(cpus)} workers: {what};"
            f' ethtool -L, or fanout = "hash"'
        )
        yield Finding(("workers", "fanout"), show(config.workers.fanout), rule)


def _steering_twice(config: Config, hardware: Hardware) -> Iterator[Finding]:
    for name in config.node.interfaces:
        elsewhere = hardware.rps_cpus.get(name, frozenset()) - set(config.workers.cpus)
        if config.workers.fanout == "cpu" and elsewhere:
            rule = (
                f"receive packet steering (RPS) of {name} takes packets to cpus without a worker"
                f" ({ranges(elsewhere)}), where the hash decides instead: set its rps_cpus to 0,"
                " or to the workers' cpus"
            )
            yield Finding(("workers", "fanout"), show(config.workers.fanout), rule)


def _memory(config: Config, hardware: Hardware) -> Iterator[Finding]:
    interfaces, most = len(config.node.interfaces), hardware.memory_bytes // 2
    rings = interfaces * sum(
        (own.rx_ring_mib << 20) + own.tx_ring_frames * TX_FRAME_BYTES for _, own in _each(config)
    )
    if most and rings > most:
        rule = (
            f"the rings of all workers on {interfaces} interfaces take {_mib(rings)},"
            f" more than half of the memory of this machine, {_mib(hardware.memory_bytes)}"
        )
        cpu = max(config.settings_by_cpu, key=lambda c: config.settings_by_cpu[c].rx_ring_mib)
        value = config.settings_by_cpu[cpu].rx_ring_mib
        yield Finding(_place(config, cpu, "rx_ring_mib"), show(value), rule)
    flows = config.workers.flows * FLOW_BYTES * len(config.workers.cpus)
    if most and flows > most:
        rule = (
            f"at {FLOW_BYTES} bytes a flow the tables of {len(config.workers.cpus)} workers take"
            f" {_mib(flows)}, more than half of the memory of this machine,"
            f" {_mib(hardware.memory_bytes)}"
        )
        yield Finding(("workers", "flows"), show(config.workers.flows), rule)


def _mib(number: int) -> str:
    return f"{number >> 20} MiB"


def _frames_that_nobody_sees(config: Config, _hardware: Hardware) -> Iterator[Finding]:
    for cpu, own in _each(config):
        if own.qdisc_bypass:
            rule = (
                "frames pass by the queueing discipline: tcpdump does not show them, and nothing"
                " shapes them; turn it off to look at them"
            )
            yield Finding(_place(config, cpu, "qdisc_bypass"), "true", rule)


RULES: tuple[Rule, ...] = (
    _keys_without_effect,
    _rings_shorter_than_a_replacement,
    _short_tx_rings,
    _polling_leaves_no_cpu,
    _polling_for_blocks,
    _workers_on_cpu_0,
    _workers_on_one_core,
    _queues_and_workers,
    _steering_twice,
    _memory,
    _frames_that_nobody_sees,
)
