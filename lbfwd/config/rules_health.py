"""Rules of health checks, checked on the document as in rules.py: BAD values keep them silent."""

from collections import defaultdict
from collections.abc import Iterator, Mapping

from lbfwd.config.document import BAD, Document, tables
from lbfwd.config.health import COMMON_KEYS, KEYS_OF_TYPE
from lbfwd.config.problem import MISSING, Finding, Location, show

_TYPES = '"none", "tcp", "http", "https", "dns" or "udp"'


def health_rules(document: Document) -> Iterator[Finding]:
    """Yield what is wrong with the pools' health checks and what they say of bad health."""
    services = _services_by_pool(document)
    for at, pool in tables(document, "pool"):
        yield from _min_healthy(at, pool)
        health = pool.get("health")
        if not isinstance(health, dict):
            continue
        yield from _health((*at, "health"), health)
        name = pool.get("name", BAD)
        if services is not None and name is not BAD:
            yield from _target((*at, "health"), health, services.get(name, []))


def _min_healthy(at: Location, pool: Document) -> Iterator[Finding]:
    least, backends = pool.get("min_healthy", 0), pool.get("backends")
    if "register" in pool:  # nobody knows how many there will be
        return
    if type(least) is int and isinstance(backends, list) and least > len(backends):
        rule = f"the pool has {len(backends)} backends"
        yield Finding((*at, "min_healthy"), show(least), rule)


def _health(at: Location, health: Document) -> Iterator[Finding]:
    kind = health.get("type")
    if kind is None and health:
        yield Finding((*at, "type"), MISSING, f"required: {_TYPES}")
    if not isinstance(kind, str) or kind == "none":  # switched off: what else is there may stay
        return
    for key, value in health.items():
        types = [name for name, keys in KEYS_OF_TYPE.items() if key in keys]
        if types and kind not in types and key not in COMMON_KEYS:
            rule = f'no effect with type = "{kind}"; a key of {" and ".join(types)}'
            yield Finding((*at, key), show(value), rule)
    yield from _lacking(at, kind, health)
    if health.get("via") == "direct" and "mtu_check_s" in health:
        rule = 'no effect with via = "direct": it is the tunnel that is checked'
        yield Finding((*at, "mtu_check_s"), show(health["mtu_check_s"]), rule)


def _lacking(at: Location, kind: str, health: Document) -> Iterator[Finding]:
    unnamed = not health.get("host") and not health.get("sni")
    if kind == "https" and unnamed and health.get("verify", True) is True:
        rule = "required with verify = true, or host: the name that the certificate is for"
        yield Finding((*at, "sni"), MISSING, rule)
    if kind == "dns" and not health.get("query"):
        yield Finding((*at, "query"), MISSING, 'required with type = "dns"')
    if kind == "udp" and health.get("expect") and not health.get("payload"):
        yield Finding((*at, "payload"), MISSING, "required with expect: nobody answers unasked")


def _services_by_pool(document: Document) -> Mapping[str, list[Document]] | None:
    """Return the services of each pool; None: not known, for something there is wrong already."""
    names = {pool.get("name") for _, pool in tables(document, "pool")}
    found = defaultdict[str, list[Document]](list)
    for _, service in tables(document, "service"):
        name = service.get("pool", BAD)
        if name is BAD or name not in names:
            return None
        found[name].append(service)
    return None if document.get("service") is BAD else found


def _target(at: Location, health: Document, services: list[Document]) -> Iterator[Finding]:
    """Check that it is known what is probed: a VIP where it goes by tunnel, and a port."""
    if health.get("type", "none") in ("none", BAD):
        return
    if not services and health.get("via", "tunnel") == "tunnel":
        rule = 'no service uses this pool, so there is no VIP to probe; or via = "direct"'
        yield Finding((*at, "via"), '"tunnel"', rule)
    elif "port" not in health:
        ports = {service.get("port") for service in services}
        if BAD not in ports and (len(ports) != 1 or None in ports):
            shown = ", ".join(sorted("every" if port is None else str(port) for port in ports))
            has = (
                f"the services of this pool have ports: {shown}" if ports else "no service has one"
            )
            yield Finding((*at, "port"), MISSING, f"required: {has}; say which is probed")
