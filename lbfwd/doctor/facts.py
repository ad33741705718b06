"""What the checks look at: plain values, read once. What is empty or None is not known."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from lbfwd.backend.plan import Underlay
from lbfwd.config import Config, IPAddress, Problem
from lbfwd.config.hardware import Hardware
from lbfwd.config.warn import LocalAddress
from lbfwd.health import rp_filter
from lbfwd.supervisor.status import Status


@dataclass(frozen=True)
class Package:
    """A Python package that lbfwd needs: least version, and the one that is there (or none)."""

    name: str
    least: str
    installed: str


@dataclass(frozen=True)
class Host:
    """The machine. ``synchronized``: the kernel holds its clock for right (adjtimex(2))."""

    kernel: str
    packages: tuple[Package, ...] = ()
    synchronized: bool | None = None
    clocksource: str = ""


@dataclass(frozen=True)
class Offloads:
    """What an interface does to received packets before anybody sees them (ethtool -k)."""

    gro: bool = False
    lro: bool = False
    udp_gro_forwarding: bool = False


@dataclass(frozen=True)
class Irq:
    """An interrupt of an interface: where it may go, how often it came, its driver's name."""

    number: int
    cpus: frozenset[int]
    count: int
    name: str = ""


@dataclass(frozen=True)
class Secret:
    """The file that holds the hash_key: permission bits, and the owner's user id."""

    path: str
    mode: int
    owner: int


@dataclass(frozen=True)
class NodeFacts:
    """A node.

    ``status`` None: ``refused`` says why, or ``foreign`` of which version it is, so that it cannot
    be read. ``later``: its status a moment after ``status``.
    ``nics``: the network cards under its interfaces, such as the members of a bond. By each of
    them: ``offloads``, ``nic_drops`` (packets that the hardware had no room for),
    ``irqs``. ``guard``: what is wrong with it, or nothing. ``sysctls``: below ``net``.
    ``governors``: by cpu. ``files_limit``: descriptors that the supervisor may open.
    ``privileged``: not in a user namespace, where some limits cannot be passed.
    """

    host: Host
    config_file: str
    refused: str = ""
    foreign: str = ""
    config: Config | None = None
    status: Status | None = None
    later: Status | None = None
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
    nics: tuple[str, ...] = ()
    offloads: Mapping[str, Offloads] = field(default_factory=dict)
    nic_drops: Mapping[str, int] = field(default_factory=dict)
    irqs: Mapping[str, tuple[Irq, ...]] = field(default_factory=dict)
    hardware: Hardware = field(default_factory=Hardware)
    isolated: frozenset[int] = frozenset()
    governors: Mapping[int, str] = field(default_factory=dict)
    local: tuple[LocalAddress, ...] = ()
    answers: tuple[rp_filter.Finding, ...] = ()
    guard: str = ""
    sysctls: Mapping[str, int] = field(default_factory=dict)
    secret: Secret | None = None
    files_limit: int | None = None
    privileged: bool = True


@dataclass(frozen=True)
class Device:
    """A tunnel device; ``kind``: of rtnetlink (gre, ip6gre, tun, …), ``mtu`` in bytes."""

    name: str
    kind: str
    up: bool
    mtu: int


@dataclass(frozen=True)
class BackendFacts:
    """A backend.

    ``vips`` and ``nodes``: what it is to serve, by the kit's nftables table or the command line.
    ``addresses``: devices by address. ``rp_filter``: by device, ``all`` included.
    ``arp_ignore``, ``arp_announce``: by device, effective. ``filtered``: the kit's table is there;
    ``strangers``: packets that it refused. ``ruled``: VIPs whose replies advertise an MSS for the
    tunnel. ``listening``: local addresses of listening sockets. ``raw_drops``: packets that user
    space was too slow for.
    """

    host: Host
    vips: tuple[IPAddress, ...] = ()
    nodes: tuple[IPAddress, ...] = ()
    devices: tuple[Device, ...] = ()
    addresses: Mapping[IPAddress, str] = field(default_factory=dict)
    rp_filter: Mapping[str, int] = field(default_factory=dict)
    arp_ignore: Mapping[str, int] = field(default_factory=dict)
    arp_announce: Mapping[str, int] = field(default_factory=dict)
    filtered: bool = False
    strangers: int = 0
    underlays: Mapping[IPAddress, Underlay] = field(default_factory=dict)
    ruled: frozenset[IPAddress] = frozenset()
    listening: frozenset[IPAddress] = frozenset()
    raw_drops: int = 0
    offloads: Mapping[str, Offloads] = field(default_factory=dict)
