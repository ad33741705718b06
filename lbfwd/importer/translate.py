"""keepalived's statements → pools and services; pure."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from lbfwd.config.model import service_name
from lbfwd.config.values import MAX_INTERFACES, MAX_SERVICES, MAX_WEIGHT, IPAddress, parse_interface
from lbfwd.importer.checks import CHECKERS, Health, health
from lbfwd.importer.note import Note, Notes
from lbfwd.importer.reasons import METHODS, OTHER_BLOCKS, REASONS, SCHEDULERS
from lbfwd.importer.scope import Scope, name_the_rest
from lbfwd.importer.timing import TIMING_KEYS
from lbfwd.importer.tree import Statement
from lbfwd.importer.virtual import RealServer, Virtual, real_servers, virtuals

_LARGE_TABLE = 655_373
_LARGE_POOL = 655  # more than these want more than the default's 65,537 slots, 100 each
_DEFAULT_PROTOCOL = "udp"  # check_data.c: what the kernel makes of 0
_UNWEIGHTED = ("rr", "lc")
_OF_SOURCE = {"sh": "sh-port", "mh": "mh-port"}
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9._:/\[\]-]", re.ASCII)
_SERVER_KEYS = {"weight", "lvs_method", "lb_kind", "virtualhost", *TIMING_KEYS, *CHECKERS}
_VIRTUAL_KEYS = {
    *("lb_algo", "lvs_sched", "lb_kind", "lvs_method", "protocol", "real_server", "virtualhost"),
    *("persistence_timeout", "sh-port", "mh-port", "sh-fallback", "mh-fallback"),
    *TIMING_KEYS,
}


@dataclass(frozen=True)
class Section:
    """A virtual server as a pool and its services: keys and values as in TOML."""

    heading: str
    pool: Mapping[str, object]
    backends: Sequence[Mapping[str, object]]
    health: Health
    services: Sequence[Mapping[str, object]]
    notes: Sequence[Note]


@dataclass(frozen=True)
class Imported:
    """All that was converted; ``notes`` are those that belong to no section."""

    interfaces: Sequence[str]
    sections: Sequence[Section]
    notes: Sequence[Note]


@dataclass
class _Used:
    """What was given away already: names of pools, places of services; and all VIPs."""

    vips: set[IPAddress]
    pools: set[str] = field(default_factory=set)
    services: set[tuple[Virtual, str]] = field(default_factory=set)

    def name(self, wanted: str) -> str:
        """Return a name that no pool has yet."""
        base, number = wanted[:58], 1
        while (name := base if number == 1 else f"{base}-{number}") in self.pools:
            number += 1
        self.pools.add(name)
        return name


def translate(tree: Sequence[Statement], notes: Notes) -> Imported:
    """Convert what has an equivalent; ``notes`` gets what else there is."""
    groups = {s.value: s for s in tree if s.name == "virtual_server_group"}
    heads = [s for s in tree if s.name == "virtual_server"]
    used = _Used({v.vip for head in heads for v in virtuals(head, groups, Notes())})
    sections = []
    for head in heads:
        own = Notes()
        section = _section(head, virtuals(head, groups, own), used, own)
        sections += [section] if section else []
        notes.made += [] if section else own.made
    served = {head.words[2] for head in heads if head.value == "group" and len(head.words) > 2}
    for other in tree:
        if other.name == "virtual_server_group" and other.value not in served:
            notes.add(other.place, str(other), "no virtual_server has it: left out")
        elif other.name not in ("virtual_server", "virtual_server_group"):
            notes.add(other.place, str(other), REASONS.get(other.name, OTHER_BLOCKS))
    return Imported(_interfaces(tree), sections, tuple(notes.made))


def _interfaces(tree: Sequence[Statement]) -> tuple[str, ...]:
    """Return where VRRP had the VIPs: best guess of where their packets come in."""
    found: list[str] = []
    for block in tree:
        for line in block.inside if block.name == "vrrp_instance" else ():
            try:
                name = parse_interface(line.value) if line.name == "interface" else ""
            except ValueError:
                continue
            found += [name] if name and name not in found else []
    return tuple(found[:MAX_INTERFACES])


def _section(
    head: Statement, wanted: Sequence[Virtual], used: _Used, notes: Notes
) -> Section | None:
    """Return what becomes of a virtual server; None: nothing, and a note says why."""
    scope = Scope(head)
    protocol = scope.value("protocol").lower() or _DEFAULT_PROTOCOL
    if protocol not in ("tcp", "udp"):
        found = scope.find("protocol") or head
        notes.add(found.place, f"{head}: {found}", "no equivalent: TCP and UDP; left out")
        return None
    places = list(_free(head, wanted, protocol, used, notes))
    servers = list(real_servers(scope, used.vips, notes)) if places else []
    if not servers:
        if places:
            notes.add(head.place, str(head), "left out: no real server is left")
            used.services -= {(place, protocol) for place in places}
        return None
    _name_what_differs(scope, servers, notes)
    name = used.name(_wanted_name(head, places[0], protocol))
    ports = {place.port for place in places}
    _name_other_ports(servers, ports, notes)
    return Section(
        heading=f"{head.place}: {head}",
        pool=_pool(name, servers),
        backends=list(_backends(scope, servers, notes)),
        health=health(servers, ports, notes),
        services=[_service(place, protocol, name, scope) for place in places],
        notes=tuple(notes.made),
    )


def _free(
    head: Statement, wanted: Sequence[Virtual], protocol: str, used: _Used, notes: Notes
) -> Iterator[Virtual]:
    for place in wanted:
        name = service_name(place.vip, protocol, place.port)
        if (place, protocol) in used.services:
            notes.add(head.place, str(head), f"{name} left out: a service has this place already")
        elif len(used.services) >= MAX_SERVICES:
            notes.add(head.place, str(head), f"{name} left out: {MAX_SERVICES} services at most")
        else:
            used.services.add((place, protocol))
            yield place


def _wanted_name(head: Statement, first: Virtual, protocol: str) -> str:
    if head.value != "group":
        return service_name(first.vip, protocol, first.port)
    name = _NOT_IN_A_NAME.sub("_", f"{head.words[2][:50]}/{protocol}")
    return f"_{name}" if name.startswith("-") else name


def _pool(name: str, servers: Sequence[RealServer]) -> dict[str, object]:
    size = {"table_size": _LARGE_TABLE} if len(servers) > _LARGE_POOL else {}
    # As IPVS does it: a virtual server without a real server rejects what comes.
    return {"name": name, **size, "all_down": "withdraw"}


def _backends(
    scope: Scope, servers: Sequence[RealServer], notes: Notes
) -> Iterator[dict[str, object]]:
    weighted = _scheduler(scope) not in _UNWEIGHTED
    for server in servers:
        weight = server.scope.whole("weight", 1, 0, MAX_WEIGHT, notes)
        weight = weight if weighted else min(weight, 1)  # 0: no new flows, in rr, too
        yield {"address": server.address} | ({"weight": weight} if weight != 1 else {})


def _service(place: Virtual, protocol: str, pool: str, scope: Scope) -> dict[str, object]:
    keys: dict[str, object] = {"vip": str(place.vip), "protocol": protocol}
    if place.port:
        keys["port"] = place.port
    keys["pool"] = pool
    port_switch = _OF_SOURCE.get(_scheduler(scope))
    by_source = port_switch is not None and not scope.find(port_switch)
    if by_source or scope.find("persistence_timeout"):
        keys["affinity"] = "source"
    return keys | {"empty": "reject"}


def _scheduler(scope: Scope) -> str:
    found = scope.find("lb_algo", "lvs_sched")
    return found.value if found else "wlc"  # keepalived's default


def _name_what_differs(scope: Scope, servers: Sequence[RealServer], notes: Notes) -> None:
    head = scope.block
    scheduler = _scheduler(scope)
    at = (scope.find("lb_algo", "lvs_sched") or head).place
    notes.add(at, f"lb_algo {scheduler}", SCHEDULERS.get(scheduler, SCHEDULERS["wlc"]))
    _name_method(scope.find("lb_kind", "lvs_method"), head, notes)
    if not scope.find("protocol"):
        notes.add(head.place, str(head), "no protocol: UDP, as keepalived has it")
    if found := scope.find("persistence_timeout"):
        why = (
            'affinity = "source": it has no timeout; a client keeps its backend as long as the'
            " pool does not change, and its live flows beyond that"
        )
        notes.add(found.place, str(found), why)
    name_the_rest(head, _VIRTUAL_KEYS, notes)
    for server in servers:
        name_the_rest(server.block, _SERVER_KEYS, notes)
        for own in server.block.inside:
            if own.name in ("lb_kind", "lvs_method"):
                _name_method(own, own, notes)


def _name_method(named: Statement | None, head: Statement, notes: Notes) -> None:
    method = named.value if named else "NAT"
    at = (named or head).place
    notes.add(at, f"lb_kind {method}", METHODS.get(method, METHODS["TUN"]))


def _name_other_ports(servers: Sequence[RealServer], ports: set[int | None], notes: Notes) -> None:
    for server in servers:
        if server.port and ports not in ({server.port}, {None}):
            why = "ports are not changed: the server must listen on the port of the VIP"
            notes.add(server.block.place, str(server.block), why)
