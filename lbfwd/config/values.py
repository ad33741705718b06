"""What the keys of a configuration can hold: one check a kind of value.

Each raises ValueError with the rule in an operator's words.
"""

import re
from collections.abc import Hashable
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from math import isqrt
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

# As in _ring.h: LBFWD_MAX_WORKERS, _MAX_RX, _MAX_SERVICES, _MAX_MEMBERS, _MAX_BACKENDS.
MAX_WORKERS = 64
MAX_INTERFACES = 16
MAX_SERVICES = 65536
MAX_MEMBERS = 65535
MAX_BACKENDS = 131072

MAX_CPU = 65535
MAX_WEIGHT = 65535
MAX_TABLE_SIZE = 2**24
DEFAULT_TABLE_SIZE = 65537
DEFAULT_RX_RING_MIB = 64
DEFAULT_RX_BLOCK_KIB = 128
MAX_FLOW_S = 32767  # half of the 16-bit clock of a flow table entry: _flow.h
MAX_ENTROPY_BITS = 32  # as many as _encap.h varies

_NAME = re.compile(r"[A-Za-z0-9._:/\[\]][A-Za-z0-9._:/\[\]-]{0,63}")
_INTERFACE = re.compile(r"[^\s/:\x00]{1,15}")  # the kernel's dev_valid_name()
_LISTEN = re.compile(r"(\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<v4>[0-9.]+)):(?P<port>[0-9]{1,5})", re.ASCII)
_GROUP = re.compile(r"|[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}", re.ASCII)
_THIS_NETWORK = IPv4Network("0.0.0.0/8")  # RFC 1122 section 3.2.1.3: never a destination
_BROADCAST = IPv4Address("255.255.255.255")
_PREFIX_LENGTHS = {4: (8, 31), 6: (8, 127)}  # of source_entropy: at least a bit can vary

Item = TypeVar("Item", bound=Hashable)
OfFamily = TypeVar("OfFamily", IPAddress, IPNetwork)


def is_prime(number: int) -> bool:
    """Tell whether a number is prime, by trial division (some 4,000 steps for a table size)."""
    return number >= 2 and all(number % divisor for divisor in range(2, isqrt(number) + 1))


def parse_name(value: object) -> str:
    """Check the name of a node, pool, backend or service. Raises ValueError."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError("a name is 1 to 64 letters, digits or . _ : / [ ] - and begins with no -")
    return value


def parse_interface(value: object) -> str:
    """Check the form of an interface's name. Raises ValueError."""
    if not isinstance(value, str) or not _INTERFACE.fullmatch(value) or value in (".", ".."):
        raise ValueError("an interface name is 1 to 15 characters, none of them space, / or :")
    return value


def parse_address(value: object) -> IPAddress:
    """Read a unicast address that can be routed to. Raises ValueError naming what it is instead."""
    text = str(value) if isinstance(value, IPv4Address | IPv6Address) else value
    if not isinstance(text, str):
        raise ValueError("an IPv4 or IPv6 address in quotes")
    return _read_address(text)


@lru_cache(maxsize=MAX_BACKENDS)  # equal ones become one object, which is found without comparing
def _read_address(text: str) -> IPAddress:
    if "/" in text:
        raise ValueError("one address, without a prefix length")
    if "%" in text:
        raise ValueError("an address without a zone: link-local addresses cannot be used")
    try:
        address = ip_address(text)
    except ValueError:
        raise ValueError("not an IPv4 or IPv6 address") from None
    if kind := _unusable(address):
        raise ValueError(f"{kind}; a unicast address is needed")
    return address


def canonical(text: str) -> str:
    """Return the one way to write a valid address; IPv4 has no other (ipaddress reads no other)."""
    return str(ip_address(text)) if ":" in text else text


def _unusable(address: IPAddress) -> str:
    """Say why nobody can be reached at this address from afar; empty: it is a usable one."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return f"an IPv4-mapped IPv6 address (write {address.ipv4_mapped})"
    kinds = {
        "the unspecified address": address.is_unspecified,
        "an address of 0.0.0.0/8": isinstance(address, IPv4Address) and address in _THIS_NETWORK,
        "the broadcast address": address == _BROADCAST,
        "a multicast address": address.is_multicast,
        "a loopback address": address.is_loopback,
        "a link-local address": address.is_link_local,
    }
    return next((kind for kind, is_it in kinds.items() if is_it), "")


def parse_prefix(value: object) -> IPNetwork:
    """Read a prefix of unicast addresses, at least two. Raises ValueError naming the rule."""
    text = str(value) if isinstance(value, IPv4Network | IPv6Network) else value
    if not isinstance(text, str) or "/" not in text:
        raise ValueError('a prefix in quotes, such as "10.99.0.0/16"')
    if "%" in text:
        raise ValueError("a prefix without a zone: link-local addresses cannot be used")
    try:
        prefix = ip_network(text, strict=False)
    except ValueError:
        raise ValueError("not an IPv4 or IPv6 prefix") from None
    if prefix.network_address != ip_address(text.split("/")[0]):
        raise ValueError(f"bits behind the prefix are set; {prefix} is meant?")
    least, most = _PREFIX_LENGTHS[prefix.version]
    if not least <= prefix.prefixlen <= most:
        raise ValueError(f"an IPv{prefix.version} prefix length from /{least} to /{most}")
    if kind := _unusable(prefix.network_address):
        raise ValueError(f"begins with {kind}; a prefix of unicast addresses is needed")
    return prefix


def parse_table_size(value: object) -> int:
    """Check the size of a Maglev table (paper section 3.4: prime). Raises ValueError."""
    if type(value) is not int or not 2 <= value <= MAX_TABLE_SIZE or not is_prime(value):
        raise ValueError(f"a prime number up to {MAX_TABLE_SIZE} (65537; 655373 for large pools)")
    return value


def parse_tx_ring_frames(value: object) -> int:
    """Check the frames of a TX ring. Raises ValueError.

    256 hold the segments of one super-frame (64 KiB at an MSS of 536: 123) and those of another.
    """
    if type(value) is not int or not 256 <= value <= 65536 or value & (value - 1):
        raise ValueError("a power of two from 256 to 65536")
    return value


def parse_listen(value: object) -> str:
    """Check where to listen, an address and a port; empty: nowhere. Raises ValueError."""
    rule = 'an address and a port, such as "127.0.0.1:9108" or "[::1]:9108"; "" for nowhere'
    found = _LISTEN.fullmatch(value) if isinstance(value, str) else None
    if value == "":
        return ""
    if not found or not 0 < int(found["port"]) < 65536:
        raise ValueError(rule)
    try:
        address = ip_address(found["v6"] or found["v4"])
    except ValueError:
        raise ValueError(rule) from None
    if (address.version == 6) != bool(found["v6"]):
        raise ValueError(rule)
    return found[0]


def parse_group(value: object) -> str:
    """Check the name of a group of users; empty: none. Raises ValueError."""
    if not isinstance(value, str) or not _GROUP.fullmatch(value):
        raise ValueError('the name of a group of this machine, as in /etc/group; "" for none')
    return value


def whole(low: int, high: int) -> PlainValidator:
    """Make the check for a whole number in a range; a TOML boolean or float is none."""

    def check(value: object) -> int:
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return value

    return PlainValidator(check)


def each_once(items: tuple[Item, ...]) -> tuple[Item, ...]:
    """Check that nothing stands in an array twice. Raises ValueError."""
    twice = sorted({str(item) for item in items if items.count(item) > 1})
    if twice:
        raise ValueError(f"each one once: {', '.join(twice)} stands there more than once")
    return items


def one_a_family(noun: str) -> AfterValidator:
    """Make the check that an array holds at most one of each family; ``noun``: of what."""

    def check(items: tuple[OfFamily, ...]) -> tuple[OfFamily, ...]:
        if len({item.version for item in items}) < len(items):
            raise ValueError(f"at most one {noun} of each family (IPv4, IPv6)")
        return items

    return AfterValidator(check)


Name = Annotated[str, PlainValidator(parse_name)]
Interface = Annotated[str, PlainValidator(parse_interface)]
Address = Annotated[IPAddress, PlainValidator(parse_address)]
Prefix = Annotated[IPNetwork, PlainValidator(parse_prefix)]


def array(shortest: int = 0, longest: int | None = None) -> Any:
    """Describe an array: TOML's are lists, ours are tuples, hence not strict about that."""
    return Field(strict=False, min_length=shortest, max_length=longest)


class Table(BaseModel):
    """A table of the file: frozen, no unknown keys, no guessing at types."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        populate_by_name=True,
        hide_input_in_errors=True,
    )
