"""Rules of health checks, checked on the document as in rules.py: BAD values keep them silent."""

from collections.abc import Iterator

from lbfwd.config.document import BAD, Document, tables
from lbfwd.config.health import COMMON_KEYS, KEYS_OF_TYPE
from lbfwd.config.problem import MISSING, Finding, Location, show

_TYPES = '"none", "tcp", "http", "https", "dns" or "udp"'


def health_rules(document: Document) -> Iterator[Finding]:
    """Yield what is wrong with the pools' health checks and what they say of bad health."""
    for at, pool in tables(document, "pool"):
        yield from _min_healthy(at, pool)
        health = pool.get("health")
        if isinstance(health, dict):
            yield from _health((*at, "health"), health)
            yield from _target((*at, "health"), health, _services(document, pool))


def _min_healthy(at: Location, pool: Document) -> Iterator[Finding]:
    least, backends = pool.get("min_healthy", 0), pool.get("backends")
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


def _services(document: Document, pool: Document) -> list[Document] | None:
    """Return the services of a pool; None: not known, for something there is wrong already."""
    name = pool.get("name", BAD)
    services = [service for _, service in tables(document, "service")]
    known = {other.get("name") for _, other in tables(document, "pool")}
    if (
        name is BAD
        or document.get("service") is BAD
        or any(s.get("pool", BAD) not in known for s in services)
    ):
        return None
    return [service for service in services if service.get("pool") == name]


def _target(at: Location, health: Document, services: list[Document] | None) -> Iterator[Finding]:
    """Check that it is known what is probed: a VIP where it goes by tunnel, and a port."""
    if services is None or health.get("type", "none") in ("none", BAD):
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
