"""The command line of ``python -m bench.pktgen``: text to frozen values, or the rule it breaks."""

import argparse
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

Address = IPv4Address | IPv6Address

FCS = 4  # bytes at the end of a frame, which the card adds: pktgen's pkt_size is without
MAX_FRAME = 9018
# Ethernet's least; and pktgen's over IPv6: headers of 14, 40 and 8 bytes, its own 16, the FCS
MIN_FRAME = {4: 64, 6: 82}
LAST_PORT = 65534  # udp_src_max is exclusive, and 16 bits wide
DIGITS = 10**10 - 1  # pktgen reads ten digits and ignores the rest
# RFC 2544 appendix C.2.2 and RFC 5180 section 8: addresses for benchmarks
BENCHMARK_SOURCES = {4: "198.18.0.0/15", 6: "2001:2::/48"}
STATUS_COMMAND = "lbfwd status --json"


@dataclass(frozen=True)
class Span:
    """Addresses or ports (as numbers), both ends inclusive."""

    first: int
    last: int

    @property
    def count(self) -> int:
        """How many they are."""
        return self.last - self.first + 1

    def begin(self, count: int) -> "Span":
        """Return the first so many of them."""
        return Span(self.first, self.first + count - 1)

    def divided(self, parts: int) -> "tuple[Span, ...]":
        """Return so many spans of equal length, one after another; a rest is left out."""
        length = self.count // parts
        return tuple(
            Span(self.first + n * length, self.first + (n + 1) * length - 1) for n in range(parts)
        )


@dataclass(frozen=True)
class Options:
    """What to send. ``size``: bytes of a frame with FCS; ``pps``: of all threads, 0: no limit.

    ``packets``: of all threads, 0: for ``seconds``. ``queues``: empty: one after another.
    ``status_command``: empty: no node is asked.
    """

    interface: str
    mac: str
    vip: Address
    port: int
    cpus: tuple[int, ...]
    queues: tuple[int, ...]
    sources: Span
    source_ports: Span
    flows: int
    random: bool
    size: int
    pps: int
    packets: int
    seconds: float
    burst: int
    clone: int
    status_command: tuple[str, ...]


def number(low: int, high: int) -> Callable[[str], int]:
    """Return a reader of whole numbers between two bounds, both inclusive."""

    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9_]+", text) or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to {high}")
        return int(text)

    return read


def positive(text: str) -> float:
    """Read a number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def numbers(text: str) -> tuple[int, ...]:
    """Read a list such as ``0,2-4``. Order and repetitions are kept."""
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", part)
        if not match or int(match[2] or match[1]) < int(match[1]):
            raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as 0,2-4")
        found += range(int(match[1]), int(match[2] or match[1]) + 1)
    return tuple(found)


def mac(text: str) -> str:
    """Read the MAC address of one station."""
    octets = text.lower().split(":")
    if len(octets) != 6 or not all(re.fullmatch(r"[0-9a-f]{2}", octet) for octet in octets):
        raise argparse.ArgumentTypeError(f"{text!r} is not a MAC address such as 02:00:00:00:00:01")
    if int(octets[0], 16) & 1 or set(octets) == {"00"}:
        raise argparse.ArgumentTypeError(f"{text!r} is not the MAC address of one station")
    return text.lower()


def address(text: str) -> Address:
    """Read the address of one host."""
    try:
        found = ip_address(text)
    except ValueError:
        found = None
    if found is None or found.is_multicast or found.is_unspecified or "%" in text:
        raise argparse.ArgumentTypeError(f"{text!r} is not the IPv4 or IPv6 address of one host")
    return found


def sources(text: str) -> tuple[Address, Address]:
    """Read an address, a network, or ``FIRST-LAST``; returns first and last."""
    try:
        if "-" in text:
            first, _, last = text.partition("-")
            ends = address(first), address(last)
        else:
            network = ip_network(text)
            ends = network[0], network[-1]
    except (ValueError, argparse.ArgumentTypeError):
        rule = "an address, a network such as 198.18.0.0/15, or FIRST-LAST"
        raise argparse.ArgumentTypeError(f"{text!r} is not {rule}") from None
    if ends[0].version != ends[1].version or int(ends[0]) > int(ends[1]):
        raise argparse.ArgumentTypeError(f"{text!r}: FIRST is above LAST, or of another family")
    if any(end.is_multicast for end in ends):
        raise argparse.ArgumentTypeError(f"{text!r}: a source is one host, not a multicast group")
    return ends


def ports(text: str) -> Span:
    """Read ``FIRST-LAST`` or one port."""
    match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", text)
    span = Span(int(match[1]), int(match[2] or match[1])) if match else Span(0, 0)
    if not 1 <= span.first <= span.last <= LAST_PORT:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a range FIRST-LAST of ports from 1 to {LAST_PORT}"
        )
    return span


def command(text: str) -> tuple[str, ...]:
    """Split a command line as a shell would."""
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None


def parser() -> argparse.ArgumentParser:
    """Return what the command line may hold."""
    made = argparse.ArgumentParser(
        prog="python -m bench.pktgen",
        description="Send UDP with the kernel's pktgen, ask the node, report what became of it.",
        epilog="exit codes: 0 done, 1 refused or failed (the reason is on stderr), 2 wrong usage, "
        "130 interrupted",
    )
    made.add_argument("interface", help="interface that sends")
    made.add_argument("--json", action="store_true", help="print the report as JSON")
    _add_packets(made.add_argument_group("packets"))
    _add_flows(made.add_argument_group("flows"))
    _add_load(made.add_argument_group("load"))
    node = made.add_argument_group("node")
    node.add_argument(
        "--status-command",
        type=command,
        default=STATUS_COMMAND,
        metavar="COMMAND",
        help="prints the node's status; '' asks none (default: %(default)s)",
    )
    return made


def _add_packets(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--mac", type=mac, required=True, help="MAC address of the next hop")
    group.add_argument("--vip", type=address, required=True, help="destination, IPv4 or IPv6")
    group.add_argument("--port", type=number(1, 65535), required=True, help="destination UDP port")
    group.add_argument(
        "--size",
        type=number(min(MIN_FRAME.values()), MAX_FRAME),
        metavar="BYTES",
        help="frame with its 4 bytes of FCS (default: the least, 64 or for IPv6 82)",
    )


def _add_flows(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--flows", type=number(1, DIGITS), default=10_000, help="at least that many (10000)"
    )
    group.add_argument(
        "--sources",
        type=sources,
        metavar="RANGE",
        help="network or FIRST-LAST (default: 198.18.0.0/15, IPv6: 2001:2::/48)",
    )
    group.add_argument(
        "--source-ports", type=ports, default=Span(1024, LAST_PORT), metavar="FIRST-LAST"
    )
    group.add_argument(
        "--random", action="store_true", help="flows in random order, not one after another"
    )


def _add_load(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--cpus", type=numbers, default=(0,), help="a thread each, e.g. 0,2-4 (0)")
    group.add_argument(
        "--queues", type=numbers, default=(), help="TX queue of each thread (default: 0, 1, …)"
    )
    rate = group.add_mutually_exclusive_group()
    rate.add_argument("--pps", type=number(1, DIGITS), default=0, help="packets a second in all")
    rate.add_argument("--mbps", type=positive, help="Mb/s in all, frames with FCS")
    end = group.add_mutually_exclusive_group()
    end.add_argument("--seconds", type=positive, default=10.0, help="how long (10)")
    end.add_argument("--packets", type=number(1, DIGITS), default=0, help="how many in all")
    group.add_argument("--burst", type=number(1, 4096), default=1, help="packets a doorbell (1)")
    group.add_argument("--clone", type=number(0, 10**6), default=0, help="clone_skb (0)")


def parse(arguments: Sequence[str] | None = None) -> tuple[Options, bool]:
    """Return the options, and whether JSON is wanted. Raises SystemExit as argparse does."""
    made = parser()
    given = made.parse_args(arguments)
    family = given.vip.version
    first, last = given.sources or sources(BENCHMARK_SOURCES[family])
    if first.version != family:
        made.error(f"argument --sources: {first}-{last} is not of the family of --vip")
    given.size = given.size or MIN_FRAME[family]
    if given.size < MIN_FRAME[family]:
        made.error(f"argument --size: {given.size} is below {MIN_FRAME[family]}, IPv6's least")
    values = vars(given)
    as_json, mbps = values.pop("json"), values.pop("mbps")
    values["sources"] = Span(int(first), int(last))
    if mbps:
        values["pps"] = max(round(mbps * 1e6 / 8 / given.size), 1)
    return Options(**values), as_json
