"""The node's counters before and after: ``lbfwd status --json``, here or through ssh."""

import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ValidationError

COMMAND_S = 30.0
SETTLE_S = 5.0  # for packets that are still on their way
ASK_AGAIN_S = 0.2


class _Ring(BaseModel):
    packets: int
    drops: int


class _Worker(BaseModel):
    slot: int
    cpu: int
    seen: int
    rings: tuple[_Ring, ...]


class _Interface(BaseModel):
    name: str
    device_tx_dropped: int
    qdisc_tx_dropped: int


class _Service(BaseModel):
    packets: int


class Status(BaseModel):
    """What is used of the status of lbfwd; what else is there does not matter."""

    node: str
    pid: int
    workers: tuple[_Worker, ...]
    interfaces: tuple[_Interface, ...]
    services: tuple[_Service, ...]
    drops: dict[str, int]


class NoStatusError(Exception):
    """The node's status cannot be had. The text says how it was asked, and what came."""


@dataclass(frozen=True)
class WorkerCount:
    """Packets of one worker.

    ``received``: they reached its rings; ``ring_full``: of those, there was no room for.
    """

    slot: int
    cpu: int
    received: int
    ring_full: int
    taken: int


@dataclass(frozen=True)
class NodeCount:
    """What the node counted during the run, other traffic included. All in packets.

    ``behind``: forwarded, but then dropped by a device or its queue.
    """

    name: str
    workers: tuple[WorkerCount, ...]
    forwarded: int
    dropped: dict[str, int]
    behind: dict[str, int]

    @property
    def received(self) -> int:
        """Packets that reached the rings, lost ones included."""
        return sum(worker.received for worker in self.workers)

    @property
    def ring_full(self) -> int:
        """Packets for which a ring had no room."""
        return sum(worker.ring_full for worker in self.workers)


def ask(command: Sequence[str]) -> Status:
    """Run the command and read what it prints. Raises NoStatusError."""
    shown = " ".join(command)
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=COMMAND_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoStatusError(f"{shown}: {error}") from error
    if done.returncode:
        raise NoStatusError(f"{shown}: exit code {done.returncode}: {done.stderr.strip()}")
    try:
        return Status.model_validate_json(done.stdout)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise NoStatusError(f"{shown}: not the status of lbfwd: {where}: {first['msg']}") from error


def settled(command: Sequence[str]) -> Status:
    """Ask until nothing arrives any more, or for a while. Raises NoStatusError."""
    deadline = time.monotonic() + SETTLE_S
    before, now = ask(command), ask(command)
    while before.workers != now.workers and time.monotonic() < deadline:
        time.sleep(ASK_AGAIN_S)
        before, now = now, ask(command)
    return now


def counted(before: Status, after: Status) -> NodeCount:
    """Return what was counted in between. Raises NoStatusError after a restart."""
    if (before.node, before.pid) != (after.node, after.pid):
        raise NoStatusError(
            f"{before.node} (pid {before.pid}) is {after.node} (pid {after.pid}) after the run: "
            "lbfwd was restarted, and its counters with it"
        )
    started_at = {worker.slot: worker for worker in before.workers}
    return NodeCount(
        name=after.node,
        workers=tuple(_worker(started_at.get(now.slot), now) for now in after.workers),
        forwarded=_forwarded(after) - _forwarded(before),
        dropped=_grown(before.drops, after.drops),
        behind=_grown(_behind(before), _behind(after)),
    )


def _worker(before: _Worker | None, now: _Worker) -> WorkerCount:
    old = before or _Worker(slot=now.slot, cpu=now.cpu, seen=0, rings=())
    return WorkerCount(
        slot=now.slot,
        cpu=now.cpu,
        received=sum(r.packets for r in now.rings) - sum(r.packets for r in old.rings),
        ring_full=sum(r.drops for r in now.rings) - sum(r.drops for r in old.rings),
        taken=now.seen - old.seen,
    )


def _forwarded(status: Status) -> int:
    return sum(service.packets for service in status.services)


def _behind(status: Status) -> dict[str, int]:
    found = {}
    for interface in status.interfaces:
        found[f"{interface.name}: device"] = interface.device_tx_dropped
        found[f"{interface.name}: queue"] = interface.qdisc_tx_dropped
    return found


def _grown(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    grown = {name: count - before.get(name, 0) for name, count in after.items()}
    return {name: count for name, count in grown.items() if count}
