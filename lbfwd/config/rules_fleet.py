"""Rules between the keys of ``[fleet]``, ``[etcd]`` and registration, and with all the rest."""

import socket
from collections.abc import Callable, Iterator
from ipaddress import ip_address

from lbfwd.config.document import BAD, Document, tables
from lbfwd.config.problem import MISSING, Finding, Location, show

KeyOf = Callable[[Location], str]
_PAIRS = (("certificate_file", "key_file"), ("user", "password_file"))
_TLS = ("ca_file", "certificate_file")


def fleet_rules(document: Document, key_of: KeyOf) -> Iterator[Finding]:
    """Yield what is wrong; ``key_of`` turns a location into its key path."""
    fleet = document.get("fleet")
    if isinstance(fleet, dict):
        yield from _each_once(fleet)
        yield from _this_node(document, fleet)
        yield from _no_vip(document, fleet, key_of)
        yield from _fragments(document, fleet)
    etcd = document.get("etcd")
    if isinstance(etcd, dict):
        yield from _etcd(etcd)
    yield from _registration(document)


def _each_once(fleet: Document) -> Iterator[Finding]:
    names: dict[object, int] = {}
    addresses: dict[object, int] = {}
    for at, node in tables(fleet, "nodes", ("fleet",)):
        index = int(at[-1])
        name = node.get("name", BAD)
        if name is not BAD and (first := names.setdefault(name, index)) != index:
            rule = f"two nodes cannot have one name; nodes[{first}] has it already"
            yield Finding((*at, "name"), show(name), rule)
        for place, address in _addresses(at, node):
            if (first := addresses.setdefault(ip_address(address), index)) != index:
                rule = f"an address belongs to one node; nodes[{first}] has it already"
                yield Finding(place, show(address), rule)


def _addresses(at: Location, node: Document) -> Iterator[tuple[Location, str]]:
    found = node.get("addresses")
    for index, address in enumerate(found if isinstance(found, list) else ()):
        if address is not BAD:
            yield (*at, "addresses", index), address


def _this_node(document: Document, fleet: Document) -> Iterator[Finding]:
    node = document.get("node")
    name = node.get("name", socket.gethostname()) if isinstance(node, dict) else BAD
    names = [node.get("name", BAD) for _, node in tables(fleet, "nodes")]
    if names and BAD not in (name, *names) and name not in names:
        rule = f"this node (node.name = {show(name)}) must be one of them"
        yield Finding(("fleet", "nodes"), show(names), rule)


def _no_vip(document: Document, fleet: Document, key_of: KeyOf) -> Iterator[Finding]:
    vips = {
        ip_address(vip): at
        for at, service in tables(document, "service")
        if (vip := service.get("vip", BAD)) is not BAD
    }
    for at, node in tables(fleet, "nodes", ("fleet",)):
        for place, address in _addresses(at, node):
            if service := vips.get(ip_address(address)):
                rule = f"the VIP of {key_of(service)}; a node needs an address of its own"
                yield Finding(place, show(address), rule)


def _fragments(document: Document, fleet: Document) -> Iterator[Finding]:
    """Yield what nodes lack that hand fragments over: others, one way to spread packets."""
    nodes, workers = list(tables(fleet, "nodes", ("fleet",))), document.get("workers")
    if fleet.get("fragments") != "peer" or fleet.get("nodes") is BAD:
        return
    if not nodes:
        yield Finding(("fleet", "fragments"), '"peer"', "needs nodes to hand fragments over to")
    if isinstance(workers, dict) and (fanout := workers.get("fanout", "hash")) not in ("hash", BAD):
        rule = '[fleet] fragments = "peer" needs "hash": fragments come from other nodes, too'
        yield Finding(("workers", "fanout"), show(fanout), rule)
    own = document.get("node")
    name = own.get("name", socket.gethostname()) if isinstance(own, dict) else BAD
    here = [_families(at, node) for at, node in nodes if node.get("name") == name]
    for at, node in nodes:
        yield from _hands_over(at, node, here[0] if here else set())


def _hands_over(at: Location, node: Document, here: set[int]) -> Iterator[Finding]:
    """Yield why a node cannot be handed fragments; ``here``: families of this node."""
    addresses = node.get("addresses", [])
    if addresses is BAD or BAD in addresses:
        return
    if not addresses:
        rule = '[fleet] fragments = "peer" hands over to it: an address is needed'
        yield Finding((*at, "addresses"), show(addresses), rule)
    elif here and not _families(at, node) & here:
        rule = '[fleet] fragments = "peer": this node has no address of that family'
        yield Finding((*at, "addresses"), show(addresses), rule)


def _families(at: Location, node: Document) -> set[int]:
    return {ip_address(address).version for _, address in _addresses(at, node)}


def _etcd(etcd: Document) -> Iterator[Finding]:
    for pair in _PAIRS:
        for one, other in (pair, pair[::-1]):
            if etcd.get(one, "") not in ("", BAD) and etcd.get(other, "") == "":
                yield Finding(("etcd", one), show(etcd[one]), f"needs {other}, too")
    endpoints = etcd.get("endpoints", [])
    if endpoints is BAD or BAD in endpoints:
        return
    for key in ("ca_file", "certificate_file", "user"):
        value = etcd.get(key, "")
        if value not in ("", BAD) and not endpoints:
            yield Finding(("etcd", key), show(value), "without endpoints there is no etcd to use")
        elif key in _TLS and value not in ("", BAD) and not _any_tls(endpoints):
            yield Finding(("etcd", key), show(value), "for TLS: no endpoint begins with https://")


def _any_tls(endpoints: list[str]) -> bool:
    return any(endpoint.startswith("https://") for endpoint in endpoints)


def _registration(document: Document) -> Iterator[Finding]:
    table, etcd = document.get("registration", {}), document.get("etcd", {})
    if not isinstance(table, dict) or not isinstance(etcd, dict):
        return
    listen, endpoints = table.get("listen", ""), etcd.get("endpoints", [])
    for key in ("certificate_file", "key_file"):
        value = table.get(key, "")
        if listen not in ("", BAD) and value == "":
            yield Finding(("registration", key), MISSING, "required with listen: it is HTTPS")
        elif listen == "" and value not in ("", BAD):
            yield Finding(("registration", key), show(value), "without listen it is not used")
    for at, pool in tables(document, "pool"):
        register = pool.get("register")
        if register is None:
            yield from _backends(at, pool)
        elif isinstance(register, dict) and BAD not in (listen, endpoints):
            yield from _register((*at, "register"), register, bool(listen), bool(endpoints))
            yield from _proving((*at, "register"), pool, document)


def _backends(at: Location, pool: Document) -> Iterator[Finding]:
    rule = "unless backends register themselves ([pool.register])"
    if "backends" not in pool:
        yield Finding((*at, "backends"), MISSING, f"required, {rule}")
    elif pool["backends"] == []:
        yield Finding((*at, "backends"), "[]", f"cannot be empty, {rule}")


def _register(at: Location, register: Document, https: bool, etcd: bool) -> Iterator[Finding]:
    if not https and not etcd:
        rule = "nobody can register: that takes [registration] listen, or [etcd] endpoints"
        yield Finding(at, show(register), rule)
    elif https and register.get("token_file", "") == "":
        rule = "required with [registration] listen: whoever knows the token may register"
        yield Finding((*at, "token_file"), MISSING, rule)


def _proving(at: Location, pool: Document, document: Document) -> Iterator[Finding]:
    name = pool.get("name", BAD)
    used = [service.get("pool", BAD) for _, service in tables(document, "service")]
    if BAD not in (name, *used, document.get("service")) and name not in used:
        rule = "no service uses this pool, so there is no VIP at which a backend can prove itself"
        yield Finding(at, show(pool["register"]), rule)
