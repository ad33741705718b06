"""The configuration as values: frozen, validated, complete with its defaults.

A model checks what can be said of one key alone; rules.py checks keys against each other. Units
stand in the names. Each validator raises ValueError with the rule in an operator's words.
"""

import socket
from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, InstanceOf, PlainValidator, WrapValidator

from lbfwd.config.announce import Announce, AnnounceWhen
from lbfwd.config.fleet import EtcdSettings, Fleet, FleetNode, Register, Registration
from lbfwd.config.health import Health, MinHealthy
from lbfwd.config.key import HashKey
from lbfwd.config.once import backends_once, pools_once
from lbfwd.config.values import (
    DEFAULT_RX_BLOCK_KIB,
    DEFAULT_RX_RING_MIB,
    DEFAULT_TABLE_SIZE,
    MAX_CPU,
    MAX_ENTROPY_BITS,
    MAX_FLOW_S,
    MAX_INTERFACES,
    MAX_MEMBERS,
    MAX_SERVICES,
    MAX_WEIGHT,
    MAX_WORKERS,
    Address,
    Interface,
    IPAddress,
    IPNetwork,
    Name,
    Prefix,
    Table,
    array,
    each_once,
    one_a_family,
    parse_group,
    parse_listen,
    parse_table_size,
    parse_tx_ring_frames,
    whole,
)

Cpu = Annotated[int, whole(0, MAX_CPU)]
Ring = Literal["v3", "v2"]
RxRingMib = Annotated[int, whole(1, 4096)]
RxBlockKib = Annotated[int, whole(128, 4096)]
RxRetireMs = Annotated[int, whole(1, 1000)]
BusyPollUs = Annotated[int, whole(0, 100_000)]
TxRingFrames = Annotated[int, PlainValidator(parse_tx_ring_frames)]


def entropy_bits(prefix: IPNetwork) -> int:
    """Return how many low bits of a source_entropy prefix vary: those behind it, 32 at most."""
    return min(prefix.max_prefixlen - prefix.prefixlen, MAX_ENTROPY_BITS)


def service_name(vip: object, protocol: object, port: object) -> str:
    """Name a service that has no name: ``192.0.2.10:80/tcp``, ``[2001:db8::1]:any/udp``."""
    host = f"[{vip}]" if ":" in str(vip) else str(vip)
    return f"{host}:{'any' if port is None else port}/{protocol}"


def worker_name(cpu: object) -> str:
    """Name the ``[[worker]]`` of a cpu."""
    return f"cpu {cpu}"


class Node(Table):
    """One box: its name, where VIP packets arrive, the outer header of its tunnels, its answers.

    ``source`` holds at most one address a family; for a family without one it is the output
    interface's first global address. ``source_entropy`` stands for it where backends spread their
    load by outer addresses: a prefix a family, whose low bits (those behind it, 32 at most) are
    taken from the flow hash. ``outer_df``: DF in outer IPv4 headers, so that the path MTU is
    learned. ``echo``: who answers echo requests to a VIP.
    """

    name: Name = Field(default_factory=socket.gethostname)
    interfaces: Annotated[
        tuple[Interface, ...], array(1, MAX_INTERFACES), AfterValidator(each_once)
    ]
    source: Annotated[tuple[Address, ...], array(), one_a_family("address")] = ()
    source_entropy: Annotated[tuple[Prefix, ...], array(), one_a_family("prefix")] = ()
    outer_df: bool = True
    echo: Literal["reply", "backend", "drop"] = "reply"


class WorkerSettings(Table):
    """What one worker may have of its own: its rings (Documentation/networking/packet_mmap).

    ``rx_block_kib`` is at least 128, so that a 64 KiB super-frame and its headers fit into a
    block. Every ``rx_retire_ms`` a block is handed over however full it is: the number of blocks
    times that is how long packets can wait for a worker (512 ms by default, more than it takes to
    replace one that died). docs/tuning.md says what each key gave.
    """

    ring: Ring = "v3"
    rx_ring_mib: RxRingMib = DEFAULT_RX_RING_MIB
    rx_block_kib: RxBlockKib = DEFAULT_RX_BLOCK_KIB
    rx_retire_ms: RxRetireMs = 1
    busy_poll_us: BusyPollUs = 0
    tx_ring_frames: TxRingFrames = 4096
    qdisc_bypass: bool = False


class Workers(WorkerSettings):
    """The forwarding processes, one a cpu, in the order of their slots.

    ``flows`` is how many live flows one worker can hold, at 24 bytes each in a file of the runtime
    directory.
    """

    cpus: Annotated[tuple[Cpu, ...], array(1, MAX_WORKERS), AfterValidator(each_once)]
    fanout: Literal["hash", "cpu", "queue"] = "hash"
    flows: Annotated[int, whole(1024, 2**27)] = 1_048_576


class Worker(Table):
    """``[[worker]]``: what the worker on ``cpu`` has of its own; None: as in ``[workers]``."""

    cpu: Cpu
    ring: Ring | None = None
    rx_ring_mib: RxRingMib | None = None
    rx_block_kib: RxBlockKib | None = None
    rx_retire_ms: RxRetireMs | None = None
    busy_poll_us: BusyPollUs | None = None
    tx_ring_frames: TxRingFrames | None = None
    qdisc_bypass: bool | None = None

    @property
    def name(self) -> str:
        """What problems call it: ``worker "cpu 3"``."""
        return worker_name(self.cpu)

    def own(self) -> dict[str, object]:
        """Return the keys that it sets, but for its cpu."""
        return self.model_dump(exclude={"cpu"}, exclude_none=True)


class Flows(Table):
    """How long a flow that is not seen keeps its backend, in seconds.

    ``unconfirmed_s``: after its first packet only. ``tcp_closing_s``: after a FIN or RST.
    """

    tcp_idle_s: Annotated[int, whole(1, MAX_FLOW_S)] = 900
    tcp_closing_s: Annotated[int, whole(1, MAX_FLOW_S)] = 60
    udp_idle_s: Annotated[int, whole(1, MAX_FLOW_S)] = 120
    unconfirmed_s: Annotated[int, whole(1, MAX_FLOW_S)] = 30


class Backend(Table):
    """A server of a pool. Its name (default: its address) is its identity in the Maglev table.

    A backend of weight 0 gets no new flows.
    """

    address: Address
    name: Name = Field(default_factory=lambda valid: str(valid["address"]))
    weight: Annotated[int, whole(0, MAX_WEIGHT)] = 1


class RegisteredBackend(Backend):
    """A backend that has registered itself; no file holds one."""


class Pool(Table):
    """A named set of backends; ``table_size`` is prime (paper section 3.4).

    Only one that backends may ``register`` in may have none.

    ``min_healthy``: so many backends stay in service whatever their checks say, as a count or as a
    percentage of the pool ("50%"). ``all_down``: when no backend passes, all stay in service
    (``fail_open``), or none (``withdraw``). ``slow_start_s``: how long a new or recovered backend
    takes to reach its weight.
    """

    name: Name
    table_size: Annotated[int, PlainValidator(parse_table_size)] = DEFAULT_TABLE_SIZE
    backends: Annotated[
        tuple[Backend, ...], array(0, MAX_MEMBERS), WrapValidator(backends_once)
    ] = ()
    registration: Register | None = Field(default=None, alias="register")
    min_healthy: MinHealthy = "0"
    all_down: Literal["fail_open", "withdraw"] = "fail_open"
    slow_start_s: Annotated[int, whole(0, 3600)] = 0
    health: Health = Health()


class Service(Table):
    """A VIP, protocol and port (None: every port), and the pool that answers for it.

    ``empty``: without a usable backend packets are dropped, or rejected (TCP reset, UDP port
    unreachable), so that clients know at once. ``announce``: whether this service wants its VIP
    announced while a backend serves, always, or never.
    """

    vip: Address
    protocol: Literal["tcp", "udp"]
    port: Annotated[int, whole(1, 65535)] | None = None
    name: Name = Field(
        default_factory=lambda valid: service_name(valid["vip"], valid["protocol"], valid["port"])
    )
    pool: Name
    affinity: Literal["5-tuple", "source"] = "5-tuple"
    empty: Literal["drop", "reject"] = "drop"
    announce: AnnounceWhen = "when_healthy"


class Metrics(Table):
    """Where Prometheus' metrics are served: address and port; empty: nowhere."""

    listen: Annotated[str, PlainValidator(parse_listen)] = "127.0.0.1:9108"


class Admin(Table):
    """Who may use the admin socket besides root: a group of this machine; empty: nobody."""

    group: Annotated[str, PlainValidator(parse_group)] = ""


class Config(Table):
    """A whole configuration; the TOML keys of ``pools`` and ``services`` are singular.

    ``own_settings`` are the ``[[worker]]`` tables: ``settings_by_cpu`` is what follows from them.
    """

    # Never dumped: what is dumped is printed sooner or later.
    hash_key: InstanceOf[HashKey] = Field(exclude=True, repr=False)
    node: Node
    workers: Workers
    own_settings: Annotated[tuple[Worker, ...], array(0, MAX_WORKERS)] = Field(
        default=(), alias="worker"
    )
    flows: Flows = Flows()
    metrics: Metrics = Metrics()
    admin: Admin = Admin()
    announce: Announce = Announce()
    fleet: Fleet = Fleet()
    registration: Registration = Registration()
    etcd: EtcdSettings = EtcdSettings()
    pools: Annotated[tuple[Pool, ...], array(), AfterValidator(pools_once)] = Field(
        default=(), alias="pool"
    )
    services: Annotated[tuple[Service, ...], array(0, MAX_SERVICES)] = Field(
        default=(), alias="service"
    )

    @cached_property
    def addresses(self) -> frozenset[IPAddress]:
        """Those of all backends."""
        # To hash an address takes long, and one object stands for it in many pools.
        once = {id(b.address): b.address for pool in self.pools for b in pool.backends}
        return frozenset(once.values())

    @property
    def settings_by_cpu(self) -> dict[int, WorkerSettings]:
        """What each worker has in force, in the order of the slots."""
        common = {name: getattr(self.workers, name) for name in WorkerSettings.model_fields}
        own = {worker.cpu: worker.own() for worker in self.own_settings}
        return {cpu: WorkerSettings(**common | own.get(cpu, {})) for cpu in self.workers.cpus}


_TABLES: dict[tuple[str, ...], type[Table]] = {
    (): Config,
    ("node",): Node,
    ("workers",): Workers,
    ("worker",): Worker,
    ("flows",): Flows,
    ("metrics",): Metrics,
    ("admin",): Admin,
    ("announce",): Announce,
    ("fleet",): Fleet,
    ("fleet", "nodes"): FleetNode,
    ("registration",): Registration,
    ("etcd",): EtcdSettings,
    ("pool",): Pool,
    ("pool", "backends"): Backend,
    ("pool", "register"): Register,
    ("pool", "health"): Health,
    ("service",): Service,
}


def known_keys(table: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the keys that a table may have; ``("pool", "backends")`` names the table."""
    fields = _TABLES[tuple(table)].model_fields
    keys = tuple(field.alias or name for name, field in fields.items())
    return (*keys, "hash_key_file") if not table else keys


def tables_with(key: str) -> tuple[tuple[str, ...], ...]:
    """Return the tables in which a key has its place."""
    return tuple(table for table in _TABLES if key in known_keys(table))
