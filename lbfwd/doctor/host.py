"""Checks of the machine, node or backend: kernel, packages, clock. Pure."""

import re
from collections.abc import Iterator

from lbfwd.doctor.facts import Host
from lbfwd.doctor.finding import Finding, ok, warn

Version = tuple[int, ...]

# The table of docs/architecture.md.
KERNELS: tuple[tuple[Version, str], ...] = (
    ((5, 16), "neighbours are not kept resolved by the kernel; they are asked for again"),
    ((6, 1), "flow tables lie under 4 KiB pages: a few nanoseconds a packet with many flows"),
    ((6, 2), "UDP GSO super-frames do not reach a ring: they are dropped and counted there"),
    ((6, 18), "the retire timer of V3 blocks is coarse: 1 ms may be up to two jiffies"),
)
_SLOW_CLOCKS = ("hpet", "acpi_pm", "jiffies", "pit", "refined-jiffies")


def checks(host: Host) -> Iterator[Finding]:
    """Check the machine."""
    yield from kernel(host)
    yield from packages(host)
    yield from clock(host)


def kernel(host: Host) -> Iterator[Finding]:
    """Tell what this kernel lacks, by the table of docs/architecture.md."""
    version = numbers(host.kernel)
    lacking = [lack for since, lack in KERNELS if version < since]
    if not lacking:
        yield ok("kernel", f"Linux {host.kernel} lacks nothing")
    for lack in lacking:
        yield warn("kernel", f"Linux {host.kernel}", lack, "apt install linux-image-amd64  # newer")


def packages(host: Host) -> Iterator[Finding]:
    """Name Python packages that are missing, or too old."""
    bad = [p for p in host.packages if numbers(p.installed) < numbers(p.least)]
    if not bad:
        yield ok("packages", f"{len(host.packages)} Python packages are recent enough")
    for package in bad:
        have = f"{package.name} {package.installed}" if package.installed else f"no {package.name}"
        needed = f"{package.name}>={package.least}"
        yield warn("packages", have, f"lbfwd is tested with {needed}", f"pip install '{needed}'")


def clock(host: Host) -> Iterator[Finding]:
    """Tell whether time is right, and reading it cheap."""
    found = []
    if host.synchronized is False:
        found.append(
            warn(
                "clock",
                "the clock is not synchronized",
                "logs and captures of several nodes cannot be put in order",
                "timedatectl set-ntp true",
            )
        )
    if host.clocksource in _SLOW_CLOCKS:
        found.append(
            warn(
                "clock",
                f"clock source {host.clocksource}",
                "reading it is slow, and the kernel stamps every packet with the time",
                "cat /sys/devices/system/clocksource/clocksource0/available_clocksource"
                "  # tsc is fast: boot with tsc=reliable where it can be trusted",
            )
        )
    yield from found or [ok("clock", f"clock source {host.clocksource or 'unknown'}")]


def numbers(text: str) -> Version:
    """Return the numbers that a version begins with: ``6.18.5-arch1`` -> 6, 18, 5."""
    found = re.match(r"\d+(\.\d+)*", text)
    return tuple(map(int, found[0].split("."))) if found else ()
