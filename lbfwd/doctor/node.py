"""Reads the facts about a node; changes nothing. Blocks."""

import asyncio
import json
import time
import tomllib
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pyroute2 import IPRoute

from lbfwd.api.client import ApiError, request
from lbfwd.config import Config, ConfigError, load
from lbfwd.config.hardware import this_hardware
from lbfwd.config.machine import parse_ranges, this_machine
from lbfwd.config.warn import local_addresses, warnings
from lbfwd.doctor.facts import NodeFacts, Secret
from lbfwd.doctor.machine import bottoms, host, irqs, offloads, sysctls, text
from lbfwd.doctor.paths import tunnelled
from lbfwd.health import rp_filter
from lbfwd.net import guard
from lbfwd.supervisor.runtime import ADMIN_SOCKET
from lbfwd.supervisor.status import Status

LOOK_S = 1.0  # between the two looks at counters
_CPUS = Path("/sys/devices/system/cpu")
_SYSCTLS = ("core/optmem_max", "core/wmem_max", "ipv4/neigh/default/gc_thresh3",
            "ipv6/neigh/default/gc_thresh3")  # fmt: skip
# What a card counts when its ring was full (rtnetlink(7), struct rtnl_link_stats64).
_NO_ROOM = ("rx_missed_errors", "rx_fifo_errors", "rx_over_errors")
_WHOLE_ID_MAP = "4294967295"


@dataclass(frozen=True)
class _Answer:
    """The node's status, or as in NodeFacts: why there is none."""

    status: Status | None = None
    refused: str = ""
    foreign: str = ""


def collect(runtime: Path, config_file: str, default: str) -> NodeFacts:
    """Look at the node of a runtime directory.

    ``config_file``: empty: the one it runs with, or ``default`` where it does not run.
    """
    answer = _answer(runtime)
    status = answer.status
    file = config_file or (status.config_file if status else default)
    facts = NodeFacts(host(), file, answer.refused, answer.foreign, status=status)
    facts = _with_config(facts)
    if facts.config:
        facts = _with_interfaces(facts, facts.config)
    if status:
        facts = replace(facts, guard=_guard(status))
        time.sleep(LOOK_S)
        facts = replace(facts, later=_answer(runtime).status)
    return replace(
        facts,
        isolated=parse_ranges(text(_CPUS / "isolated")),
        sysctls=sysctls(_SYSCTLS),
        files_limit=_files_limit(status.pid) if status else None,
        privileged=text(Path("/proc/self/uid_map")).split()[-1:] == [_WHOLE_ID_MAP],
    )


def _answer(runtime: Path) -> _Answer:
    try:
        body = request(runtime / ADMIN_SOCKET, "GET", "/v1/status")
    except ApiError as error:
        return _Answer(refused=str(error))
    try:
        return _Answer(Status.model_validate_json(body))
    except ValidationError:
        return _Answer(foreign=str(json.loads(body).get("version", "of another version")))


def _with_config(facts: NodeFacts) -> NodeFacts:
    """Add the configuration as it stands in the file, and what is wrong with it."""
    path = Path(facts.config_file)
    try:
        config = load(path, machine=this_machine())
    except ConfigError as error:
        return replace(facts, problems=error.problems, secret=_secret(path))
    local = local_addresses()
    vips = {service.vip for service in config.services}
    others = [entry for entry in local if entry.address not in vips]  # VIPs: a check of their own
    return replace(
        facts,
        config=config,
        warnings=warnings(config, str(path), local=others),
        local=local,
        secret=_secret(path),
    )


def _secret(path: Path) -> Secret | None:
    """Find the file that holds the key: the configuration, or the one that it names."""
    try:
        named = tomllib.loads(text(path)).get("hash_key_file")
        place = path.parent / named if isinstance(named, str) else path
        found = place.stat()
    except (OSError, ValueError):
        return None
    return Secret(str(place), found.st_mode, found.st_uid)


def _with_interfaces(facts: NodeFacts, config: Config) -> NodeFacts:
    receiving = config.node.interfaces
    # Queues, interrupts and merging are matters of what lies under a bond or a VLAN.
    names = bottoms(receiving)
    with IPRoute() as ipr:
        drops = {
            message.get_attr("IFLA_IFNAME"): _no_room(message)
            for message in ipr.get_links()
            if message.get_attr("IFLA_IFNAME") in names
        }
    return replace(
        facts,
        nics=names,
        offloads=offloads(names),
        nic_drops=drops,
        irqs={name: irqs(name) for name in names},
        hardware=this_hardware(names),
        governors={
            cpu: governor
            for cpu in config.workers.cpus
            if (governor := text(_CPUS / f"cpu{cpu}" / "cpufreq" / "scaling_governor"))
        },
        answers=tuple(rp_filter.find(_probed(config), _output(facts.status, receiving))),
    )


def _probed(config: Config) -> set[Any]:
    """Return the VIPs that are probed through the tunnel."""
    pools = {pool.name for pool in config.pools if tunnelled(pool)}
    return {service.vip for service in config.services if service.pool in pools}


def _output(status: Status | None, receiving: Collection[str]) -> Collection[str]:
    """Return where answers from backends come in: where packets to them leave."""
    if status is None:
        return receiving
    hops = (hop for pool in status.pools for backend in pool.backends for hop in backend.hops)
    return {hop.interface for hop in hops}


def _no_room(message: Any) -> int:
    counters = message.get_attr("IFLA_STATS64") or {}
    return sum(counters.get(name, 0) for name in _NO_ROOM)


def _guard(status: Status) -> str:
    """Return what is wrong with the guard."""
    names = [i.name for i in status.interfaces if i.receives and i.ifindex is not None]
    vips = {service.vip for service in status.services}
    own = {address for peer in status.peers if peer.here for address in peer.addresses}
    try:
        lacking = asyncio.run(guard.missing(names, vips, own))
    except guard.GuardError as error:
        return str(error)
    return "table netdev lbfwd is missing or changed" if lacking else ""


def _files_limit(pid: int) -> int | None:
    for line in text(Path(f"/proc/{pid}/limits")).splitlines():
        if line.startswith("Max open files"):
            soft = line.split()[3]
            return int(soft) if soft.isdigit() else None
    return None
