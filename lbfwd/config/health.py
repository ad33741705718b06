"""``[pool.health]``: what is asked of a backend, how often, and what counts as an answer.

One table for all types; rules_health.py says which key belongs to which.
"""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, PlainValidator

from lbfwd.config.values import Table, array, each_once, whole

MAX_TEXT = 1024
KEYS_OF_TYPE: dict[str, tuple[str, ...]] = {
    "none": (),
    "tcp": (),
    "http": ("path", "host", "status", "body"),
    "https": ("path", "host", "status", "body", "sni", "verify"),
    "dns": ("query", "query_type", "rcode"),
    "udp": ("payload", "expect"),
}
COMMON_KEYS = (
    *("type", "via", "port", "interval_ms", "timeout_ms", "rise", "fall"),
    *("hold_down_s", "mtu_check_s"),
)
QUERY_TYPES = {"A": 1, "NS": 2, "SOA": 6, "MX": 15, "TXT": 16, "AAAA": 28, "SRV": 33}
RCODES = {"noerror": 0, "formerr": 1, "servfail": 2, "nxdomain": 3, "notimp": 4, "refused": 5}

_STATUS = re.compile(r"([1-5][0-9][0-9])(?:-([1-5][0-9][0-9]))?", re.ASCII)
_PATH = re.compile(r"/[!-~]{0,1023}")
_HOST = re.compile(r"(?:[A-Za-z0-9_.-]{1,253}|\[[0-9a-fA-F:.]+\])(?::[0-9]{1,5})?", re.ASCII)
_SNI = re.compile(r"[A-Za-z0-9_.:-]{1,253}", re.ASCII)
_LABEL = re.compile(r"[!-~]{1,63}")
_PERCENT = re.compile(r"(100|[1-9]?[0-9])%", re.ASCII)
_HEX = "hex:"


def parse_status(value: object) -> str:
    """Check a status, ``200``, or a range of them, ``"200-299"``; returns it as text."""
    text = str(value) if type(value) is int else value
    found = _STATUS.fullmatch(text) if isinstance(text, str) else None
    if not found or int(found[2] or found[1]) < int(found[1]):
        raise ValueError('statuses from 100 to 599, such as 200 or "200-299"')
    return found[0]


def parse_path(value: object) -> str:
    """Check what is asked for over HTTP (RFC 9112 section 3.2.1, origin form)."""
    if not isinstance(value, str) or not _PATH.fullmatch(value):
        raise ValueError("begins with / and holds visible ASCII characters only, 1024 at most")
    return value


def parse_host(value: object) -> str:
    """Check a Host header's value; empty: the default."""
    if value != "" and (not isinstance(value, str) or not _HOST.fullmatch(value)):
        raise ValueError('a host name or address, perhaps with a port: "www.example.com:8080"')
    return value


def parse_sni(value: object) -> str:
    """Check the name that a certificate is asked for and verified against; empty: the default."""
    if value != "" and (not isinstance(value, str) or not _SNI.fullmatch(value)):
        raise ValueError("a host name or address, without a port")
    return value


def parse_query(value: object) -> str:
    """Check a domain name (RFC 1035 section 2.3.4); returns it without the dot at its end."""
    rule = "a domain name of at most 253 characters, 63 between the dots"
    if not isinstance(value, str) or len(value) > 254:
        raise ValueError(rule)
    name = value.removesuffix(".")
    if name and not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise ValueError(rule)
    return value and (name or ".")


def parse_text(value: object) -> str:
    """Check a text to send or to look for; ``hex:`` and hex digits stand for bytes."""
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise ValueError(f"a text of at most {MAX_TEXT} characters")
    if value.startswith(_HEX):
        text_bytes(value)
    return value


def text_bytes(text: str) -> bytes:
    """Return the bytes that a text stands for. Raises ValueError."""
    if not text.startswith(_HEX):
        return text.encode()
    try:
        return bytes.fromhex(text.removeprefix(_HEX))
    except ValueError:
        raise ValueError("behind hex: an even number of hex digits") from None


def parse_min_healthy(value: object) -> str:
    """Check ``min_healthy``: a count, ``2``, or a percentage, ``"50%"``; returns it as text."""
    if type(value) is int and 0 <= value <= 65535:
        return str(value)
    if not isinstance(value, str) or not _PERCENT.fullmatch(value):
        raise ValueError('a number of backends, or a percentage in quotes: "50%"')
    return value


def least_healthy(min_healthy: str, backends: int) -> int:
    """Return how many of so many backends have to stay in service; a part counts as a whole."""
    if min_healthy.endswith("%"):
        return -(-backends * int(min_healthy[:-1]) // 100)
    return min(int(min_healthy), backends)


MinHealthy = Annotated[str, PlainValidator(parse_min_healthy)]
Status = Annotated[str, PlainValidator(parse_status)]
Text = Annotated[str, PlainValidator(parse_text)]


class Health(Table):
    """How the backends of a pool are watched.

    ``via``: through the tunnel to each VIP of the pool, as the clients' packets go, or ``direct``
    to the backend's address. ``port`` None: that of the services. ``fall`` failures in a row take
    a backend out, ``rise`` successes take it back, ``hold_down_s`` after its last failure at the
    earliest. ``mtu_check_s``: how often an echo of the tunnel's MTU is sent; 0: never.
    """

    type: Literal["none", "tcp", "http", "https", "dns", "udp"] = "none"
    via: Literal["tunnel", "direct"] = "tunnel"
    port: Annotated[int, whole(1, 65535)] | None = None
    interval_ms: Annotated[int, whole(100, 3_600_000)] = 2000
    timeout_ms: Annotated[int, whole(10, 60_000)] = 1000
    rise: Annotated[int, whole(1, 100)] = 2
    fall: Annotated[int, whole(1, 100)] = 3
    hold_down_s: Annotated[int, whole(0, 3600)] = 10
    mtu_check_s: Annotated[int, whole(0, 86_400)] = 60
    path: Annotated[str, PlainValidator(parse_path)] = "/"
    host: Annotated[str, PlainValidator(parse_host)] = ""
    sni: Annotated[str, PlainValidator(parse_sni)] = ""
    verify: bool = True
    status: Annotated[tuple[Status, ...], array(1, 20), AfterValidator(each_once)] = ("200-299",)
    body: Text = ""
    query: Annotated[str, PlainValidator(parse_query)] = ""
    query_type: Literal["A", "NS", "SOA", "MX", "TXT", "AAAA", "SRV"] = "A"
    rcode: Literal["noerror", "formerr", "servfail", "nxdomain", "notimp", "refused"] = "noerror"
    payload: Text = ""
    expect: Text = ""
