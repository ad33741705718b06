"""Reads the facts, and makes the changes. Blocks."""

import subprocess
from collections.abc import Iterable
from pathlib import Path

from pyroute2 import Ethtool
from pyroute2.ethtool.ioctl import EthtoolError
from pyroute2.netlink.exceptions import NetlinkError

from lbfwd.config.hardware import parse_mask
from lbfwd.doctor.machine import bottoms, irqs, is_ours, offloads, sysctls, text
from lbfwd.tune.facts import Count, Facts, Nic
from lbfwd.tune.rules import SYSCTLS
from lbfwd.tune.step import Action, Write

_NET = Path("/sys/class/net")
_UNSUPPORTED = (OSError, NetlinkError, EthtoolError)


def look(interfaces: Iterable[str]) -> Facts:
    """Read what the rules want to know of these interfaces."""
    return Facts(tuple(map(_nic, bottoms(interfaces))), sysctls(SYSCTLS))


def act(action: Action) -> str:
    """Do it. Returns why it could not be done; empty: it is done."""
    try:
        if isinstance(action, Write):
            Path(action.path).write_text(f"{action.value}\n", encoding="ascii")
            return ""
        done = subprocess.run(action.argv, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        return f"{error.filename}: not there"
    except OSError as error:
        return error.strerror or str(error)
    if done.returncode == 0:
        return ""
    return " ".join((done.stderr or done.stdout).split()) or f"exit {done.returncode}"


def _nic(name: str) -> Nic:
    queues, kind = _queues(name)
    return Nic(
        name=name,
        queues=queues,
        queue_kind=kind,
        ring=_ring(name),
        offloads=offloads([name]).get(name),
        irqs=irqs(name),
        rps=_rps(name),
    )


def _queues(name: str) -> tuple[Count, str]:
    with Ethtool() as ethtool:
        try:
            found = ethtool.get_channels(name)
        except _UNSUPPORTED:
            return Count(), "combined"
    if found.max_combined:
        return Count(found.combined_count, found.max_combined), "combined"
    return Count(found.rx_count, found.max_rx), "rx"


def _ring(name: str) -> Count:
    with Ethtool() as ethtool:
        try:
            found = ethtool.get_rings(name)
        except _UNSUPPORTED:
            return Count()
    return Count(found.rx or 0, found.rx_max or 0)


def _rps(name: str) -> dict[str, frozenset[int]]:
    files = sorted((_NET / name).glob("queues/rx-*/rps_cpus")) if is_ours(name) else []
    return {str(file): parse_mask(text(file)) for file in files}
