"""net.* sysctls: what a backend needs (pure), and the files behind them.

Kernel document: Documentation/networking/ip-sysctl.rst. For arp_ignore, arp_announce and rp_filter
the effective value is the maximum of ``all`` and the device's own.
"""

import errno
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from lbfwd.backend.request import BackendError

ROOT = Path("/proc/sys/net")
ARP = {
    # answer for addresses of the receiving device only: not for VIPs on lo
    "ipv4/conf/all/arp_ignore": 1,
    # never ask with a VIP as the sender's address
    "ipv4/conf/all/arp_announce": 2,
}
ADDR_GEN_MODE_NONE = 1  # no link-local address: nobody is there to talk to

log = structlog.get_logger()


@dataclass(frozen=True)
class Setting:
    """One sysctl below ``net``, as its path ``ipv4/conf/all/rp_filter``, and its value."""

    path: str
    value: int


def arp_settings(current: Mapping[str, int]) -> list[Setting]:
    """Return what keeps VIPs out of ARP. ``current``: value by path; a higher one is kept."""
    return [Setting(path, max(value, current[path])) for path, value in ARP.items()]


def rp_filter_settings(current: Mapping[str, int], tunnels: Iterable[str]) -> list[Setting]:
    """Return the changes that switch the reverse path filter off on the tunnel devices alone.

    ``current``: rp_filter by device, ``all`` and ``default`` included. Since ``all`` has to be 0,
    every other device (and ``default``, for those still to come) takes over what ``all`` gave it,
    before. A tunnel device has no address and no route back: strict and loose both drop there.
    """
    tunnels = set(tunnels)
    others = sorted(set(current) - tunnels - {"all", "default"})
    kept = [(name, max(current["all"], current[name])) for name in ("default", *others)]
    values = [*kept, *((name, 0) for name in sorted(tunnels)), ("all", 0)]
    return [Setting(f"ipv4/conf/{name}/rp_filter", value) for name, value in values]


def tunnel_settings(device: str, ipv6: bool) -> list[Setting]:
    """Return what a tunnel device that only receives needs, before it comes up.

    ``ipv6``: whether there are IPv6 packets to receive.
    """
    values = {
        "disable_ipv6": int(not ipv6),
        "addr_gen_mode": ADDR_GEN_MODE_NONE,
        "accept_ra": 0,
    }
    return [Setting(f"ipv6/conf/{device}/{name}", value) for name, value in values.items()]


# ---- I/O


def read(path: str) -> int:
    """Return a sysctl's value. Raises OSError."""
    return int((ROOT / path).read_text(encoding="ascii"))


def read_arp() -> dict[str, int]:
    """Return the sysctls of ``ARP`` by path."""
    return {path: read(path) for path in ARP}


def read_rp_filters() -> dict[str, int]:
    """Return rp_filter by device, ``all`` and ``default`` included."""
    devices = [entry.name for entry in (ROOT / "ipv4/conf").iterdir()]
    return {device: read(f"ipv4/conf/{device}/rp_filter") for device in devices}


def ipv6_present() -> bool:
    """Tell whether this kernel has IPv6 at all."""
    return (ROOT / "ipv6").is_dir()


def ipv6_enabled(device: str) -> bool:
    """Tell whether a device has IPv6."""
    return ipv6_present() and read(f"ipv6/conf/{device}/disable_ipv6") == 0


class Sysctls:
    """Changes sysctls and gives each back the value that it had."""

    def __init__(self) -> None:
        """Nothing changed yet."""
        self._changes: list[tuple[Setting, int]] = []

    def apply(self, settings: Iterable[Setting]) -> None:
        """Make the changes in this order. Raises BackendError."""
        for setting in settings:
            try:
                before = read(setting.path)
                if before != setting.value:
                    _write(setting)
                    self._changes.append((setting, before))
            except OSError as error:
                raise BackendError(
                    f"sysctl net/{setting.path} = {setting.value}: {error.strerror}"
                ) from error

    def restore(self) -> None:
        """Take the changes back in the opposite order.

        A device that is gone took its values along; what somebody else has changed meanwhile is
        theirs and stays.
        """
        while self._changes:
            setting, before = self._changes.pop()
            try:
                if read(setting.path) == setting.value:
                    _write(Setting(setting.path, before))
                else:
                    log.warning("sysctl_changed_by_others", sysctl=setting.path, kept=True)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENODEV):
                    log.error("sysctl_not_restored", sysctl=setting.path, reason=error.strerror)


def _write(setting: Setting) -> None:
    (ROOT / setting.path).write_text(f"{setting.value}\n", encoding="ascii")
