"""Does a configuration fit this machine? Interfaces and cores; nothing is changed."""

import fcntl
import os
import socket
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lbfwd.config.problem import Finding, show

_ONLINE_CPUS = Path("/sys/devices/system/cpu/online")
_SIOCGIFHWADDR = 0x8927  # linux/sockios.h
_ARPHRD_ETHER = 1  # linux/if_arp.h
_ARPHRD_NAMES = {772: "loopback", 65534: "no link layer", 778: "GRE", 823: "GRE over IPv6"}
_IFREQ = struct.Struct("16sH14x8x")  # struct ifreq: name, sa_family of the hardware address


@dataclass(frozen=True, slots=True)
class Machine:
    """What a configuration needs to know of a machine.

    ``interfaces`` maps names to hardware types (ARPHRD_*, linux/if_arp.h) in the network
    namespace that the process is in; ``cpus`` are those online, ``allowed`` those of them that
    processes of ours may run on (cpuset(7)).
    """

    interfaces: Mapping[str, int]
    cpus: frozenset[int]
    allowed: frozenset[int]


def lacking(
    interfaces: Sequence[object], cpus: Sequence[object], machine: Machine
) -> Iterator[Finding]:
    """Yield what a machine lacks; what is no name and no number has been reported already."""
    for index, name in enumerate(interfaces):
        if isinstance(name, str) and (rule := _interface_rule(name, machine.interfaces)):
            yield Finding(("node", "interfaces", index), show(name), rule)
    wanted = [cpu for cpu in cpus if isinstance(cpu, int)]
    for rule in _cpu_rules(wanted, machine):
        yield Finding(("workers", "cpus"), show(wanted), rule)


def _interface_rule(name: str, present: Mapping[str, int]) -> str:
    kind = present.get(name)
    if kind is None:
        return f"no such interface; there are: {', '.join(sorted(present))}"
    if kind != _ARPHRD_ETHER:
        return f"not an Ethernet interface ({_ARPHRD_NAMES.get(kind, f'ARPHRD type {kind}')})"
    return ""


def _cpu_rules(wanted: Sequence[int], machine: Machine) -> Iterator[str]:
    online = machine.cpus
    if len(wanted) > len(online):
        yield f"{len(wanted)} workers, but this machine has {len(online)} cores"
    if offline := [cpu for cpu in wanted if cpu not in online]:
        yield f"not online: {', '.join(map(str, offline))}; online: {ranges(online)}"
    if barred := [cpu for cpu in wanted if cpu in online - machine.allowed]:
        yield (
            f"not allowed by the cpuset of this process: {', '.join(map(str, barred))};"
            f" allowed: {ranges(machine.allowed)}"
        )


def ranges(cpus: Collection[int]) -> str:
    """Write a cpu list as the kernel does: ``0-3,8``."""
    starts = sorted(cpu for cpu in cpus if cpu - 1 not in cpus)
    ends = sorted(cpu for cpu in cpus if cpu + 1 not in cpus)
    pairs = zip(starts, ends, strict=True)
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in pairs)


def parse_ranges(text: str) -> frozenset[int]:
    """Read a cpu list as the kernel writes it (Documentation/admin-guide/cputopology)."""
    parts = (part.partition("-") for part in text.strip().split(",") if part)
    return frozenset(
        cpu for first, _, last in parts for cpu in range(int(first), int(last or first) + 1)
    )


def this_machine() -> Machine:
    """Ask the kernel. Raises OSError when it does not tell.

    Interfaces come by ioctl: /sys may show another network namespace.
    """
    return Machine(_hardware_types(), _online_cpus(), usable_cpus())


def _hardware_types() -> dict[str, int]:
    types: dict[str, int] = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _index, name in socket.if_nameindex():
            request = _IFREQ.pack(name.encode(), 0) + bytes(8)
            try:
                reply = fcntl.ioctl(sock, _SIOCGIFHWADDR, request)
            except OSError:  # gone since it was listed
                continue
            types[name] = _IFREQ.unpack_from(reply)[1]
    return types


def _online_cpus() -> frozenset[int]:
    try:
        return parse_ranges(_ONLINE_CPUS.read_text())
    except OSError:  # no /sys, as in some containers
        return frozenset(range(os.cpu_count() or 1))


def usable_cpus() -> frozenset[int]:
    """Return the cpus that a process of ours can be pinned to.

    Our own affinity does not tell: the supervisor may be pinned away from its workers' cores. So a
    thread of its own asks for every cpu and looks at what the kernel grants (cpuset(7)).
    """

    def ask() -> set[int]:
        os.sched_setaffinity(0, _online_cpus())
        return os.sched_getaffinity(0)

    with ThreadPoolExecutor(max_workers=1) as thread:
        return frozenset(thread.submit(ask).result())
