"""virtual_server, virtual_server_group and real_server: their heads, read."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import NamedTuple

from lbfwd.config.values import MAX_SERVICES, IPAddress, parse_address
from lbfwd.importer.note import Notes
from lbfwd.importer.scope import Scope
from lbfwd.importer.tree import Statement

_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)
_FWMARK = "no equivalent: packets are matched by VIP, protocol and port, not by mark: left out"


class Virtual(NamedTuple):
    """A VIP and its port; None: every port."""

    vip: IPAddress
    port: int | None


@dataclass(frozen=True)
class RealServer:
    """A real server; ``port`` 0: the virtual server's."""

    scope: Scope
    address: str
    port: int

    @property
    def block(self) -> Statement:
        """Where it stands."""
        return self.scope.block


def virtuals(head: Statement, groups: Mapping[str, Statement], notes: Notes) -> tuple[Virtual, ...]:
    """Return what a virtual_server serves; what cannot be served here is noted."""
    kind = head.value
    if kind == "fwmark":
        notes.add(head.place, str(head), _FWMARK)
        return ()
    if kind != "group":
        return tuple(_of_words(head, head.words[1:], notes))
    name = head.words[2] if len(head.words) > 2 else ""
    if name not in groups:
        notes.add(head.place, str(head), "no virtual_server_group has this name: left out")
        return ()
    return tuple(v for line in groups[name].inside for v in _of_group(line, notes))


def _of_group(line: Statement, notes: Notes) -> Iterator[Virtual]:
    if line.name == "fwmark":
        notes.add(line.place, str(line), _FWMARK)
    else:
        yield from _of_words(line, line.words, notes)


def _of_words(line: Statement, words: Sequence[str], notes: Notes) -> Iterator[Virtual]:
    """Yield the addresses of ``<IPADDR or range> [<PORT>]``."""
    try:
        port = _port(words[1] if len(words) > 1 else "0")
        for address in _range(words[0] if words else ""):
            yield Virtual(parse_address(address), port or None)
    except ValueError as error:
        notes.add(line.place, str(line), f"left out: {error}")


def _port(text: str) -> int:
    if not _PORT.fullmatch(text) or int(text) > 65535:
        raise ValueError(f"{text}: a port is a number from 0 to 65535")
    return int(text)


def _range(text: str) -> Iterator[IPAddress]:
    """Yield ``A``, ``A-B`` (B whole, or its last part alone) or ``A/length``; both ends count."""
    low, dash, high = text.partition("-")
    if "/" in text:
        network = ip_network(text, strict=False)
        first, last = network[0], network[-1]
    else:
        first = ip_address(low)
        last = ip_address(_whole_end(low, high)) if dash else first
    if last.version != first.version or last < first:  # type: ignore[operator]
        raise ValueError("a range goes from a lower to a higher address")
    if int(last) - int(first) >= MAX_SERVICES:
        raise ValueError(f"more than {MAX_SERVICES} addresses")
    family = IPv4Address if first.version == 4 else IPv6Address
    yield from (family(number) for number in range(int(first), int(last) + 1))


def _whole_end(low: str, high: str) -> str:
    separator = ":" if ":" in low else "."
    return high if separator in high else f"{low.rpartition(separator)[0]}{separator}{high}"


def real_servers(around: Scope, taken: set[IPAddress], notes: Notes) -> Iterator[RealServer]:
    """Yield the real servers that can be backends: unicast, none of ``taken`` (VIPs), each once."""
    seen: set[IPAddress] = set()
    for line in around.block.inside:
        if line.name != "real_server":
            continue
        try:
            address = parse_address(line.value)
            port = _port(line.words[2] if len(line.words) > 2 else "0")
        except ValueError as error:
            notes.add(line.place, str(line), f"left out: {error}")
            continue
        if address in taken:
            notes.add(line.place, str(line), "left out: it is a VIP, too, and reaches no backend")
        elif address in seen:
            notes.add(line.place, str(line), "left out: an address is one backend of a pool")
        else:
            seen.add(address)
            yield RealServer(Scope(line, around), str(address), port)
