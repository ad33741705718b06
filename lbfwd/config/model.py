"""The configuration as values: frozen, validated, complete with its defaults.

A model checks what can be said of one key alone; rules.py checks keys against each other. Units
stand in the names. Each validator raises ValueError with the rule in an operator's words.
"""

import re
import socket
from collections.abc import Hashable, Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from math import isqrt
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    InstanceOf,
    PlainValidator,
)

from lbfwd.config.key import HashKey

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

# As in _ring.h: LBFWD_MAX_WORKERS, _MAX_RX, _MAX_SERVICES, _MAX_MEMBERS, _MAX_BACKENDS.
MAX_WORKERS = 64
MAX_INTERFACES = 16
MAX_SERVICES = 65536
MAX_MEMBERS = 65535
MAX_BACKENDS = 131072

MAX_CPU = 65535
MAX_WEIGHT = 65535
MAX_TABLE_SIZE = 2**24
DEFAULT_TABLE_SIZE = 65537
DEFAULT_RX_RING_MIB = 64
DEFAULT_RX_BLOCK_KIB = 128
MAX_FLOW_S = 32767  # half of the 16-bit clock of a flow table entry: _flow.h
MAX_ENTROPY_BITS = 32  # as many as _encap.h varies

_NAME = re.compile(r"[A-Za-z0-9._:/\[\]][A-Za-z0-9._:/\[\]-]{0,63}")
_INTERFACE = re.compile(r"[^\s/:\x00]{1,15}")  # the kernel's dev_valid_name()
_THIS_NETWORK = IPv4Network("0.0.0.0/8")  # RFC 1122 section 3.2.1.3: never a destination
_BROADCAST = IPv4Address("255.255.255.255")
_PREFIX_LENGTHS = {4: (8, 31), 6: (8, 127)}  # of source_entropy: at least a bit can vary

Item = TypeVar("Item", bound=Hashable)
OfFamily = TypeVar("OfFamily", IPAddress, IPNetwork)


def is_prime(number: int) -> bool:
    """Tell whether a number is prime, by trial division (some 4,000 steps for a table size)."""
    return number >= 2 and all(number % divisor for divisor in range(2, isqrt(number) + 1))


def parse_name(value: object) -> str:
    """Check the name of a node, pool, backend or service. Raises ValueError."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError("a name is 1 to 64 letters, digits or . _ : / [ ] - and begins with no -")
    return value


def parse_interface(value: object) -> str:
    """Check the form of an interface's name. Raises ValueError."""
    if not isinstance(value, str) or not _INTERFACE.fullmatch(value) or value in (".", ".."):
        raise ValueError("an interface name is 1 to 15 characters, none of them space, / or :")
    return value


def parse_address(value: object) -> IPAddress:
    """Read a unicast address that can be routed to. Raises ValueError naming what it is instead."""
    text = str(value) if isinstance(value, IPv4Address | IPv6Address) else value
    if not isinstance(text, str):
        raise ValueError("an IPv4 or IPv6 address in quotes")
    if "/" in text:
        raise ValueError("one address, without a prefix length")
    if "%" in text:
        raise ValueError("an address without a zone: link-local addresses cannot be used")
    try:
        address = ip_address(text)
    except ValueError:
        raise ValueError("not an IPv4 or IPv6 address") from None
    if kind := _unusable(address):
        raise ValueError(f"{kind}; a unicast address is needed")
    return address


def _unusable(address: IPAddress) -> str:
    """Say why nobody can be reached at this address from afar; empty: it is a usable one."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return f"an IPv4-mapped IPv6 address (write {address.ipv4_mapped})"
    kinds = {
        "the unspecified address": address.is_unspecified,
        "an address of 0.0.0.0/8": isinstance(address, IPv4Address) and address in _THIS_NETWORK,
        "the broadcast address": address == _BROADCAST,
        "a multicast address": address.is_multicast,
        "a loopback address": address.is_loopback,
        "a link-local address": address.is_link_local,
    }
    return next((kind for kind, is_it in kinds.items() if is_it), "")


def parse_prefix(value: object) -> IPNetwork:
    """Read a prefix of unicast addresses, at least two. Raises ValueError naming the rule."""
    text = str(value) if isinstance(value, IPv4Network | IPv6Network) else value
    if not isinstance(text, str) or "/" not in text:
        raise ValueError('a prefix in quotes, such as "10.99.0.0/16"')
    if "%" in text:
        raise ValueError("a prefix without a zone: link-local addresses cannot be used")
    try:
        prefix = ip_network(text, strict=False)
    except ValueError:
        raise ValueError("not an IPv4 or IPv6 prefix") from None
    if prefix.network_address != ip_address(text.split("/")[0]):
        raise ValueError(f"bits behind the prefix are set; {prefix} is meant?")
    least, most = _PREFIX_LENGTHS[prefix.version]
    if not least <= prefix.prefixlen <= most:
        raise ValueError(f"an IPv{prefix.version} prefix length from /{least} to /{most}")
    if kind := _unusable(prefix.network_address):
        raise ValueError(f"begins with {kind}; a prefix of unicast addresses is needed")
    return prefix


def entropy_bits(prefix: IPNetwork) -> int:
    """Return how many low bits of a source_entropy prefix vary: those behind it, 32 at most."""
    return min(prefix.max_prefixlen - prefix.prefixlen, MAX_ENTROPY_BITS)


def parse_table_size(value: object) -> int:
    """Check the size of a Maglev table (paper section 3.4: prime). Raises ValueError."""
    if type(value) is not int or not 2 <= value <= MAX_TABLE_SIZE or not is_prime(value):
        raise ValueError(f"a prime number up to {MAX_TABLE_SIZE} (65537; 655373 for large pools)")
    return value


def parse_tx_ring_frames(value: object) -> int:
    """Check the frames of a TX ring. Raises ValueError.

    256 hold the segments of one super-frame (64 KiB at an MSS of 536: 123) and those of another.
    """
    if type(value) is not int or not 256 <= value <= 65536 or value & (value - 1):
        raise ValueError("a power of two from 256 to 65536")
    return value


def _whole(low: int, high: int) -> PlainValidator:
    """Make the check for a whole number in a range; a TOML boolean or float is none."""

    def check(value: object) -> int:
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return value

    return PlainValidator(check)


def _each_once(items: tuple[Item, ...]) -> tuple[Item, ...]:
    twice = sorted({str(item) for item in items if items.count(item) > 1})
    if twice:
        raise ValueError(f"each one once: {', '.join(twice)} stands there more than once")
    return items


def _one_a_family(noun: str) -> AfterValidator:
    def check(items: tuple[OfFamily, ...]) -> tuple[OfFamily, ...]:
        if len({item.version for item in items}) < len(items):
            raise ValueError(f"at most one {noun} of each family (IPv4, IPv6)")
        return items

    return AfterValidator(check)


def service_name(vip: object, protocol: object, port: object) -> str:
    """Name a service that has no name: ``192.0.2.10:80/tcp``, ``[2001:db8::1]:any/udp``."""
    host = f"[{vip}]" if isinstance(vip, IPv6Address) else str(vip)
    return f"{host}:{'any' if port is None else port}/{protocol}"


def worker_name(cpu: object) -> str:
    """Name the ``[[worker]]`` of a cpu."""
    return f"cpu {cpu}"


Name = Annotated[str, PlainValidator(parse_name)]
Interface = Annotated[str, PlainValidator(parse_interface)]
Address = Annotated[IPAddress, PlainValidator(parse_address)]
Prefix = Annotated[IPNetwork, PlainValidator(parse_prefix)]
Cpu = Annotated[int, _whole(0, MAX_CPU)]
Ring = Literal["v3", "v2"]
RxRingMib = Annotated[int, _whole(1, 4096)]
RxBlockKib = Annotated[int, _whole(128, 4096)]
RxRetireMs = Annotated[int, _whole(1, 1000)]
BusyPollUs = Annotated[int, _whole(0, 100_000)]
TxRingFrames = Annotated[int, PlainValidator(parse_tx_ring_frames)]


def _array(shortest: int = 0, longest: int | None = None) -> Any:
    """Describe an array: TOML's are lists, ours are tuples, hence not strict about that."""
    return Field(strict=False, min_length=shortest, max_length=longest)


class _Table(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        populate_by_name=True,
        hide_input_in_errors=True,
    )


class Node(_Table):
    """One box: its name, where VIP packets arrive, the outer header of its tunnels, its answers.

    ``source`` holds at most one address a family; for a family without one it is the output
    interface's first global address. ``source_entropy`` stands for it where backends spread their
    load by outer addresses: a prefix a family, whose low bits (those behind it, 32 at most) are
    taken from the flow hash. ``outer_df``: DF in outer IPv4 headers, so that the path MTU is
    learned. ``echo``: who answers echo requests to a VIP.
    """

    name: Name = Field(default_factory=socket.gethostname)
    interfaces: Annotated[
        tuple[Interface, ...], _array(1, MAX_INTERFACES), AfterValidator(_each_once)
    ]
    source: Annotated[tuple[Address, ...], _array(), _one_a_family("address")] = ()
    source_entropy: Annotated[tuple[Prefix, ...], _array(), _one_a_family("prefix")] = ()
    outer_df: bool = True
    echo: Literal["reply", "backend", "drop"] = "reply"


class WorkerSettings(_Table):
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

    cpus: Annotated[tuple[Cpu, ...], _array(1, MAX_WORKERS), AfterValidator(_each_once)]
    fanout: Literal["hash", "cpu", "queue"] = "hash"
    flows: Annotated[int, _whole(1024, 2**27)] = 1_048_576


class Worker(_Table):
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


class Flows(_Table):
    """How long a flow that is not seen keeps its backend, in seconds.

    ``unconfirmed_s``: after its first packet only. ``tcp_closing_s``: after a FIN or RST.
    """

    tcp_idle_s: Annotated[int, _whole(1, MAX_FLOW_S)] = 900
    tcp_closing_s: Annotated[int, _whole(1, MAX_FLOW_S)] = 60
    udp_idle_s: Annotated[int, _whole(1, MAX_FLOW_S)] = 120
    unconfirmed_s: Annotated[int, _whole(1, MAX_FLOW_S)] = 30


class Health(_Table):
    """How the backends of a pool are watched; this version knows only ``none``."""

    type: Literal["none"] = "none"


class Backend(_Table):
    """A server of a pool. Its name (default: its address) is its identity in the Maglev table.

    A backend of weight 0 gets no new flows.
    """

    address: Address
    name: Name = Field(default_factory=lambda valid: str(valid["address"]))
    weight: Annotated[int, _whole(0, MAX_WEIGHT)] = 1


class Pool(_Table):
    """A named set of backends; ``table_size`` is prime (paper section 3.4)."""

    name: Name
    table_size: Annotated[int, PlainValidator(parse_table_size)] = DEFAULT_TABLE_SIZE
    backends: Annotated[tuple[Backend, ...], _array(1, MAX_MEMBERS)]
    health: Health = Health()


class Service(_Table):
    """A VIP, protocol and port (None: every port), and the pool that answers for it.

    ``empty``: without a usable backend packets are dropped, or rejected (TCP reset, UDP port
    unreachable), so that clients know at once.
    """

    vip: Address
    protocol: Literal["tcp", "udp"]
    port: Annotated[int, _whole(1, 65535)] | None = None
    name: Name = Field(
        default_factory=lambda valid: service_name(valid["vip"], valid["protocol"], valid["port"])
    )
    pool: Name
    affinity: Literal["5-tuple", "source"] = "5-tuple"
    empty: Literal["drop", "reject"] = "drop"


class Config(_Table):
    """A whole configuration; the TOML keys of ``pools`` and ``services`` are singular.

    ``own_settings`` are the ``[[worker]]`` tables: ``settings_by_cpu`` is what follows from them.
    """

    # Never dumped: what is dumped is printed sooner or later.
    hash_key: InstanceOf[HashKey] = Field(exclude=True, repr=False)
    node: Node
    workers: Workers
    own_settings: Annotated[tuple[Worker, ...], _array(0, MAX_WORKERS)] = Field(
        default=(), alias="worker"
    )
    flows: Flows = Flows()
    pools: Annotated[tuple[Pool, ...], _array()] = Field(default=(), alias="pool")
    services: Annotated[tuple[Service, ...], _array(0, MAX_SERVICES)] = Field(
        default=(), alias="service"
    )

    @property
    def settings_by_cpu(self) -> dict[int, WorkerSettings]:
        """What each worker has in force, in the order of the slots."""
        common = {name: getattr(self.workers, name) for name in WorkerSettings.model_fields}
        own = {worker.cpu: worker.own() for worker in self.own_settings}
        return {cpu: WorkerSettings(**common | own.get(cpu, {})) for cpu in self.workers.cpus}


_TABLES: dict[tuple[str, ...], type[_Table]] = {
    (): Config,
    ("node",): Node,
    ("workers",): Workers,
    ("worker",): Worker,
    ("flows",): Flows,
    ("pool",): Pool,
    ("pool", "backends"): Backend,
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
