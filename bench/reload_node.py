"""A node whose configuration changes: its text, and when a change is in service."""

import mmap
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from bench.contestants import Thread, end
from bench.frames import PORT, VIPS
from bench.node_run import HASH_KEY, Node
from bench.reload_health import PORT as HEALTH_PORT
from bench.reload_health import Ward
from bench.rings import Rings
from bench.stage import FORWARD_CPU, IN, Stage
from bench.stream import NS_A_MS
from lbfwd.api.client import request
from lbfwd.demo.lab import LabError
from lbfwd.shared import CONTROL_BYTES, Control
from lbfwd.supervisor.runtime import ADMIN_SOCKET

BACKEND_NET = "10.1.0"  # routed by way of the stage's first backend
_HEALTH = (
    f'[pool.health]\ntype = "tcp"\nvia = "direct"\nport = {HEALTH_PORT}\n'
    "interval_ms = 500\ntimeout_ms = 400\nrise = 1\nfall = 1\nhold_down_s = 0\n"
)
START_S = 120.0
ANSWER_S = 120.0
LOOK_S = 0.0005  # rarely enough: a look takes time of the core that the supervisor has
_WATCH_PRIORITY = 1  # it sleeps nearly always; the supervisor must not hold it up


@dataclass(frozen=True)
class Size:
    """How much is configured: services, pools (which services share in turn), backends of each.

    Backend n has the same address in every pool, and a name of its own: so do their tables differ.
    """

    services: int
    pools: int
    backends: int
    checked: bool = False
    """Whether backends are asked twice a second if they are well."""


@dataclass(frozen=True)
class Form:
    """What the first backend of the first ``pools`` pools is like."""

    weight: int = 1
    pools: int = 1


def config(size: Size, form: Form) -> str:
    """Return the configuration, TOML. The first service is that of the stage's frames."""
    head = (
        f'hash_key = "{HASH_KEY}"\n[node]\ninterfaces = ["{IN}"]\n'
        f"[workers]\ncpus = [{FORWARD_CPU}]\n{Rings().toml()}\n"
    )
    pools = (_pool(number, size, form) for number in range(size.pools))
    services = (
        f'[[service]]\nvip = "{VIPS[4] + n // 250 * 256 + n % 250}"\nprotocol = "udp"\n'
        f'port = {PORT}\npool = "p{n % size.pools}"\n'
        for n in range(size.services)
    )
    return "".join((head, *pools, *services))


def _pool(number: int, size: Size, form: Form) -> str:
    weights = [1] * size.backends
    if number < form.pools:
        weights[0] = form.weight
    backends = "".join(
        f'  {{ name = "p{number}b{n}", address = "{BACKEND_NET}.{n + 1}", weight = {weight} }},\n'
        for n, weight in enumerate(weights)
    )
    health = _HEALTH if size.checked else ""
    return f'[[pool]]\nname = "p{number}"\nbackends = [\n{backends}]\n{health}'


@dataclass(frozen=True)
class Reload:
    """A change, in times of CLOCK_REALTIME, nanoseconds.

    ``in_service``: the last worker acknowledged, and used, the new generation; ``answered``: the
    admin socket did. ``cpu``: what of the time until it was in service the supervisor computed;
    the rest it waited, mostly for its core, which the stream and this machine's others share.
    Where nobody has asked, ``asked`` is when the log tells of a verdict, and these two are 0.
    """

    asked: int
    in_service: int
    answered: int = 0
    cpu: int = 0

    @property
    def in_service_ms(self) -> float:
        """From being asked for until every worker forwards by it."""
        return (self.in_service - self.asked) / NS_A_MS

    @property
    def cpu_ms(self) -> float:
        """What the supervisor computed until then."""
        return self.cpu / NS_A_MS

    @property
    def answered_ms(self) -> float:
        """From being asked for until the answer."""
        return (self.answered - self.asked) / NS_A_MS


class Watch(threading.Thread):
    """Notes when every worker uses a later generation than now (lbfwd/_ring.h, lbfwd_slot)."""

    def __init__(self, control: Control, workers: int, supervisor: int) -> None:
        """Look at the control file of a node that runs. ``supervisor``: its process."""
        super().__init__(daemon=True)
        self._slots, self._control, self._supervisor = range(workers), control, supervisor
        self._before, self._ran = min(self._generations()), ran_ns(supervisor)
        self.seen = self.cpu = 0
        self._given_up = False

    def give_up(self) -> None:
        """Look no more: what is looked at goes away."""
        self._given_up = True
        self.join()

    def taken_up(self, what: str) -> int:
        """Return when it was so. Raises LabError: it never was."""
        self.join()
        if not self.seen:
            raise LabError(f"{what} has made no new generation, or not every worker uses it")
        return self.seen

    def run(self) -> None:
        """Look until it is so."""
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_WATCH_PRIORITY))
        deadline = time.monotonic() + ANSWER_S
        while min(self._generations()) <= self._before:
            if time.monotonic() > deadline or self._given_up:
                return
            time.sleep(LOOK_S)
        self.seen = time.time_ns()
        self.cpu = ran_ns(self._supervisor) - self._ran

    def _generations(self) -> Iterator[int]:
        return (self._control.slot(slot).acknowledged for slot in self._slots)


def ran_ns(pid: int) -> int:
    """Return the CPU time of a process's threads."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(Thread(pid, int(task.name)).ran_ns() for task in tasks)


class Changing(Node):
    """A node, ready, whose configuration can be changed."""

    def __init__(self, stage: Stage, directory: Path, size: Size) -> None:
        """Start it, with backends that answer health checks."""
        self.ward = Ward(stage, f"{BACKEND_NET}.0/24")
        super().__init__(stage, directory, config(size, Form()))

    def is_ready(self) -> bool:
        """Return whether its log says so: a status of 100,000 backends would disturb it."""
        return self.has_come_up()

    def workers(self) -> list[int]:
        """Return the processes of its workers."""
        return [event["pid"] for event in self.events("worker_started")]

    def ask(self, verb: str, body: Mapping[str, str] | None = None) -> Reload:
        """Ask for something that makes a new generation. Raises LabError or ApiError."""
        with controlling(self.runtime) as control:
            watch = Watch(control, len(self.workers()), self.process.pid)
            watch.start()
            asked = time.time_ns()
            try:
                request(self.runtime / ADMIN_SOCKET, "POST", f"/v1/{verb}", body, ANSWER_S)
            except BaseException:
                watch.give_up()
                raise
            answered = time.time_ns()
            watch.join()
        return Reload(asked, watch.taken_up(verb), answered, watch.cpu)

    def suffer(self, verb: str) -> Reload:
        """Let the first backend ``fail`` or ``recover``. Raises LabError."""
        event = {"fail": "backend_down", "recover": "backend_up"}[verb]
        told = len(self.events(event))
        with controlling(self.runtime) as control:
            watch = Watch(control, len(self.workers()), self.process.pid)
            watch.start()
            (self.ward.fail if verb == "fail" else self.ward.recover)()
            in_service = watch.taken_up(verb)
        verdict = self.events(event)[told]["timestamp"]
        return Reload(int(datetime.fromisoformat(verdict).timestamp() * 1e9), in_service)


@contextmanager
def controlling(runtime: Path) -> Iterator[Control]:
    """Map the control file of a running node."""
    with (
        (runtime / "control").open("r+b") as file,
        mmap.mmap(file.fileno(), CONTROL_BYTES) as memory,
    ):
        control = Control(memory)
        try:
            yield control
        finally:
            control.release()


@contextmanager
def changing(stage: Stage, directory: Path, size: Size) -> Iterator[Changing]:
    """Run a node of a size until the block ends."""
    node = Changing(stage, directory, size)
    try:
        node.wait(START_S)
        for pid in node.workers():
            Thread(pid, pid).prefer()
        yield node
    finally:
        end(node.process)
