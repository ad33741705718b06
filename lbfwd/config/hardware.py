"""What warnings need to know of this machine: cores, memory, receive queues; nothing is changed."""

import array
import errno
import fcntl
import os
import re
import socket
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lbfwd.config.machine import parse_ranges, usable_cpus

_CPUS = Path("/sys/devices/system/cpu")
_NET = Path("/sys/class/net")
_MEMORY = Path("/proc/meminfo")
_SIOCETHTOOL = 0x8946  # linux/sockios.h
_ETHTOOL_GCHANNELS = 0x3C  # linux/ethtool.h
_CHANNELS = struct.Struct("=9I")  # struct ethtool_channels: cmd, four maxima, four counts
_IFREQ = struct.Struct("@16sP16x")  # struct ifreq: name, pointer
_NO_CHANNELS = (errno.EOPNOTSUPP, errno.ENODEV, errno.EPERM)


@dataclass(frozen=True, slots=True)
class Hardware:
    """A machine as warnings see it; what is empty or 0 is not known, and nothing is said of it.

    ``cpus`` are those that processes of ours may run on, ``supervisor_cpus`` those that this one
    does; ``siblings``: the cpus of a cpu's core, itself too. By interface: ``queues`` is the
    number of receive queues in use, ``rps_cpus`` where receive packet steering takes packets to.
    """

    cpus: frozenset[int] = frozenset()
    supervisor_cpus: frozenset[int] = frozenset()
    siblings: Mapping[int, frozenset[int]] = field(default_factory=dict)
    memory_bytes: int = 0
    queues: Mapping[str, int] = field(default_factory=dict)
    rps_cpus: Mapping[str, frozenset[int]] = field(default_factory=dict)


def this_hardware(interfaces: Iterable[str]) -> Hardware:
    """Ask the kernel about this machine and these interfaces of our network namespace."""
    names = tuple(interfaces)
    cpus = usable_cpus()
    queues = {name: count for name in names if (count := _receive_queues(name))}
    return Hardware(
        cpus=cpus,
        supervisor_cpus=frozenset(os.sched_getaffinity(os.getpid())),
        siblings={cpu: _siblings(cpu) for cpu in cpus},
        memory_bytes=_memory_bytes(),
        queues=queues,
        rps_cpus={name: _rps_cpus(name) for name in names},
    )


def _siblings(cpu: int) -> frozenset[int]:
    path = _CPUS / f"cpu{cpu}" / "topology" / "thread_siblings_list"
    try:
        return parse_ranges(path.read_text())
    except OSError:  # no /sys, as in some containers
        return frozenset({cpu})


def _memory_bytes() -> int:
    try:
        found = re.search(r"^MemTotal:\s+(\d+) kB", _MEMORY.read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


def _receive_queues(interface: str) -> int:
    """Return the receive queues in use (``ethtool -l``); 0 where the driver does not tell."""
    channels = array.array("B", _CHANNELS.pack(_ETHTOOL_GCHANNELS, *[0] * 8))
    request = _IFREQ.pack(interface.encode(), channels.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            fcntl.ioctl(sock, _SIOCETHTOOL, request)
        except OSError as error:
            if error.errno not in _NO_CHANNELS:
                raise
            return 0
    *_maxima, rx, _tx, _other, combined = _CHANNELS.unpack(channels)
    return int(rx + combined)


def _rps_cpus(interface: str) -> frozenset[int]:
    """Return where receive packet steering takes packets to (Documentation/networking/scaling)."""
    place = _NET / interface
    try:
        # /sys may show another network namespace, with another interface of this name.
        if int((place / "ifindex").read_text()) != socket.if_nametoindex(interface):
            return frozenset()
        masks = [path.read_text() for path in place.glob("queues/rx-*/rps_cpus")]
    except OSError:
        return frozenset()
    return frozenset().union(*map(parse_mask, masks))


def parse_mask(text: str) -> frozenset[int]:
    """Read a cpu mask as the kernel writes it: hex digits, a comma between words of 32 bits."""
    mask = int(text.strip().replace(",", "") or "0", 16)
    return frozenset(cpu for cpu in range(mask.bit_length()) if mask >> cpu & 1)
