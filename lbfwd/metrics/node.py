"""Families about the node: workers, rings, interfaces, what is in force. Pure."""

import platform
from collections.abc import Iterator, Sequence

from prometheus_client.core import Metric

from lbfwd.metrics.family import counter, gauge, info
from lbfwd.metrics.reading import Reading
from lbfwd.supervisor.status import InterfaceStatus, RingStatus, WorkerStatus

_WORKER_COUNTERS = (
    ("packets", "seen", "Packets taken from RX rings; a super-frame counts by its segments."),
    ("frames", "frames", "Frames taken from RX rings; a super-frame is one."),
    ("bursts", "bursts", "Bursts of frames that a worker took from RX rings."),
    ("waits", "waits", "Times that a worker found nothing and waited."),
    ("sends", "sends", "System calls that handed frames to the kernel."),
    ("restarts", "restarts", "Times that a worker was started again after its death."),
)
_RING_COUNTERS = (
    ("packets", "packets", "Packets that passed an RX ring's filter, dropped ones included."),
    ("dropped_packets", "drops", "Packets for which an RX ring had no room."),
    ("freezes", "freezes", "Times that an RX ring was full and stood still."),
)
_INTERFACE_COUNTERS = (
    ("device_tx_dropped_packets", "device_tx_dropped", "Frames that the device did not send."),
    ("qdisc_tx_dropped_packets", "qdisc_tx_dropped", "Frames that the device's queue dropped."),
)


def families(reading: Reading) -> Iterator[Metric]:
    """Return all of them."""
    yield info(
        "lbfwd_build",
        "Version of lbfwd, and of the Python that runs it.",
        [{"version": reading.version, "python": platform.python_version()}],
    )
    yield gauge(
        "lbfwd_generation",
        "Number of the forwarding state in force; 0: none yet.",
        [({}, reading.generation)],
    )
    yield gauge(
        "lbfwd_vip_announced",
        "1: this node announces the VIP; 0: it does not.",
        (({"vip": str(vip.vip)}, float(vip.announced)) for vip in reading.vips),
    )
    yield from _workers(reading.workers)
    yield from _flows(reading)
    yield from _rings(reading.workers)
    yield from _interfaces(reading.interfaces)


def _workers(workers: Sequence[WorkerStatus]) -> Iterator[Metric]:
    both = [({"worker": str(worker.slot)}, worker) for worker in workers]
    for name, attribute, documentation in _WORKER_COUNTERS:
        rows = ((label, getattr(worker, attribute)) for label, worker in both)
        yield counter(f"lbfwd_worker_{name}", documentation, rows)
    yield gauge(
        "lbfwd_worker_up",
        "1: the worker forwards; 0: it starts, or is given up.",
        ((label, float(worker.state == "running")) for label, worker in both),
    )
    yield gauge(
        "lbfwd_worker_state",
        "1 for the state that a worker is in: starting, running or abandoned.",
        (({**label, "state": worker.state}, 1.0) for label, worker in both),
    )
    yield info(
        "lbfwd_worker",
        "A worker: its core and the kind of its RX rings.",
        ({**label, "cpu": str(w.cpu), "ring": w.settings.ring} for label, w in both),
    )
    yield gauge(
        "lbfwd_worker_heartbeat_age_seconds",
        "Time since the supervisor saw the worker's heartbeat move; a hung worker is killed.",
        ((label, worker.heartbeat_age_ms / 1000) for label, worker in both),
    )


def _flows(reading: Reading) -> Iterator[Metric]:
    labels = [{"worker": str(worker.slot)} for worker in reading.workers]
    yield gauge(
        "lbfwd_worker_flows",
        "Live entries in the worker's flow table; a flow that changed workers is in two.",
        zip(labels, reading.flows.by_worker, strict=False),  # empty before the first generation
    )
    yield gauge(
        "lbfwd_worker_flows_capacity",
        "Live flows that the worker's flow table can hold.",
        ((label, reading.flows_capacity) for label in labels),
    )


def _rings(workers: Sequence[WorkerStatus]) -> Iterator[Metric]:
    rings = [
        ({"worker": str(worker.slot), "interface": name}, ring)
        for worker in workers
        for name, ring in _by_interface(worker.rings).items()
    ]
    for name, attribute, documentation in _RING_COUNTERS:
        rows = ((label, getattr(ring, attribute)) for label, ring in rings)
        yield counter(f"lbfwd_ring_{name}", documentation, rows)


def _by_interface(rings: Sequence[RingStatus]) -> dict[str, RingStatus]:
    """Return a ring an interface: while one is replaced there are two, and one still counts."""
    return {ring.interface: ring for ring in sorted(rings, key=lambda ring: ring.packets)}


def _interfaces(interfaces: Sequence[InterfaceStatus]) -> Iterator[Metric]:
    both = [({"interface": interface.name}, interface) for interface in interfaces]
    yield gauge(
        "lbfwd_interface_up",
        "1: the interface is up and has carrier; 0: not, or it is gone.",
        ((label, float(i.state == "up" and i.carrier)) for label, i in both),
    )
    yield gauge(
        "lbfwd_interface_admits_all",
        "1: the kernel could not hold the filter, so workers look at every packet.",
        ((label, float(i.admits_all)) for label, i in both if i.receives),
    )
    yield gauge(
        "lbfwd_interface_mtu_bytes",
        "The largest IP packet that the interface sends.",
        ((label, i.mtu) for label, i in both if i.mtu is not None),
    )
    for name, attribute, documentation in _INTERFACE_COUNTERS:
        rows = ((label, getattr(interface, attribute)) for label, interface in both)
        yield counter(f"lbfwd_interface_{name}", documentation, rows)
