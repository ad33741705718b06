"""Reads facts that nodes and backends have in common; changes nothing."""

import ctypes
import platform
import re
import socket
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from pyroute2 import Ethtool
from pyroute2.netlink.exceptions import NetlinkError

from lbfwd.backend.sysctl import read
from lbfwd.config.machine import parse_ranges
from lbfwd.doctor.facts import Host, Irq, Offloads, Package

_CLOCKSOURCE = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
_NET = Path("/sys/class/net")
_TIMEX_BYTES = 256  # struct timex (adjtimex(2)) has 208; modes 0: it is only read
_TIME_ERROR = 5  # the clock is not synchronized
_REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)>=(?P<least>[\d.]+)$")


def host() -> Host:
    """Return what the machine is."""
    return Host(
        kernel=platform.release(),
        packages=tuple(_packages()),
        synchronized=_synchronized(),
        clocksource=text(_CLOCKSOURCE),
    )


def text(path: Path) -> str:
    """Return what a file of /proc or /sys holds; empty where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def sysctls(paths: Iterable[str]) -> dict[str, int]:
    """Return sysctls below ``net`` by path; one that is not there is left out."""
    found = {}
    for path in paths:
        try:
            found[path] = read(path)
        except (OSError, ValueError):  # of the first network namespace alone
            continue
    return found


def bottoms(interfaces: Iterable[str]) -> tuple[str, ...]:
    """Return what lies under interfaces, such as a VLAN on a bond: themselves, if nothing does."""
    return tuple(sorted({bottom for name in interfaces for bottom in _bottoms(name)}))


def _bottoms(name: str) -> frozenset[str]:
    lower = {link.name.removeprefix("lower_") for link in (_NET / name).glob("lower_*")}
    found = [_bottoms(each) for each in lower if is_ours(each)]
    return frozenset().union(*found) or frozenset({name})


def offloads(interfaces: Iterable[str]) -> dict[str, Offloads]:
    """Return the offloads of interfaces; one whose driver does not tell is left out."""
    found = {}
    with Ethtool() as ethtool:
        for name in interfaces:
            try:
                features = ethtool.get_features(name)
            except (OSError, NetlinkError):
                continue
            forwarding = features.features.get("rx-udp-gro-forwarding")  # since Linux 5.12
            found[name] = Offloads(
                gro=features.offload_flags["generic-receive-offload"],
                lro=features.offload_flags["large-receive-offload"],
                udp_gro_forwarding=forwarding is not None and forwarding.enable,
            )
    return found


def irqs(interface: str) -> tuple[Irq, ...]:
    """Return the interrupts of an interface's device (Documentation/ABI, sysfs-bus-pci)."""
    place = _NET / interface
    if not is_ours(interface):
        return ()
    device = (place / "device").resolve()
    # A virtio device has its interrupts at the PCI device that it is on.
    folders = [folder for folder in (device, device.parent) if (folder / "msi_irqs").is_dir()]
    numbers = [int(e.name) for folder in folders[:1] for e in (folder / "msi_irqs").iterdir()]
    counts = counted(text(Path("/proc/interrupts")))
    return tuple(Irq(n, _affinity(n), *counts.get(n, (0, ""))) for n in sorted(numbers))


def counted(interrupts: str) -> dict[int, tuple[int, str]]:
    """Read how often interrupts came, over all cpus, and their names, from /proc/interrupts."""
    found = {}
    cpus = len(interrupts.partition("\n")[0].split())
    for line in interrupts.splitlines()[1:]:
        number, _, rest = line.partition(":")
        if number.strip().isdigit():
            words = rest.split()
            count = sum(int(word) for word in words[:cpus] if word.isdigit())
            found[int(number)] = count, words[-1] if len(words) > cpus else ""
    return found


def is_ours(interface: str) -> bool:
    """Tell whether /sys shows our network namespace's interface of this name."""
    try:
        return int(text(_NET / interface / "ifindex") or 0) == socket.if_nametoindex(interface)
    except OSError:
        return False


def _affinity(number: int) -> frozenset[int]:
    place = Path("/proc/irq") / str(number)
    return parse_ranges(
        text(place / "effective_affinity_list") or text(place / "smp_affinity_list")
    )


def _packages() -> Iterable[Package]:
    for requirement in metadata.requires("lbfwd") or ():
        if not (found := _REQUIREMENT.match(requirement)):
            continue  # of an extra
        try:
            installed = metadata.version(found["name"])
        except metadata.PackageNotFoundError:
            installed = ""
        yield Package(found["name"], found["least"], installed)


def _synchronized() -> bool | None:
    state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    return None if state < 0 else state != _TIME_ERROR
