"""What is written into /proc/net/pktgen for one run. Pure.

pktgen's ``flows`` and ``flowlen`` are not used: a flow of pktgen keeps its destination only
(function ``mod_cur_headers``), and ours is always the VIP. Source address and port change with
every packet that is built, each on its own. So A addresses and P ports make A·P flows if they are
drawn at random, and lcm(A, P) if they are walked through.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import gcd

from bench.pktgen.options import FCS, Options, Span
from bench.pktgen.proc import THREAD, Interface

HEADER = 14  # bytes of Ethernet: a frame without them and without FCS is the IP packet
NEVER_NS = 0x7FFFFFFF  # a delay of that means "send nothing" to pktgen
IPV6 = 6


@dataclass(frozen=True)
class Command:
    """One line that is written into one file of /proc/net/pktgen."""

    file: str
    text: str


@dataclass(frozen=True)
class Sender:
    """What one thread of pktgen sends. ``packets`` 0: until it is stopped."""

    device: str
    cpu: int
    queue: int
    sources: Span
    source_ports: Span
    flows: int
    packets: int
    delay_ns: int


def senders(options: Options, interface: Interface) -> tuple[Sender, ...]:
    """Divide flows, packets and rate between the threads. Raises ValueError naming rule and value.

    Each thread has its own slice of the source addresses, so no flow is sent by two.
    """
    check(options, interface)
    threads = len(options.cpus)
    queues = options.queues or tuple(n % interface.tx_queues for n in range(threads))
    slices = options.sources.divided(threads)
    flows, packets = share(options.flows, threads), share(options.packets, threads)
    made = []
    for n, cpu in enumerate(options.cpus):
        addresses, ports = layout(flows[n], slices[n], options)
        made.append(
            Sender(
                device=f"{interface.name}@{cpu}",
                cpu=cpu,
                queue=queues[n],
                sources=addresses,
                source_ports=ports,
                flows=addresses.count * ports.count,
                packets=packets[n],
                delay_ns=delay_ns(options),
            )
        )
    return tuple(made)


def check(options: Options, interface: Interface) -> None:
    """Look at what one option alone cannot tell. Raises ValueError with all rules and values."""
    broken = [*_broken(options), *_unfit(options, interface)]
    if broken:
        raise ValueError("\n".join(broken))


def _broken(options: Options) -> Iterator[str]:
    threads = len(options.cpus)
    if len(set(options.cpus)) < threads:
        yield f"--cpus {_listed(options.cpus)}: each core once"
    if options.queues and len(options.queues) != threads:
        yield f"--queues {_listed(options.queues)}: one for each of the {threads} threads"
    for option, amount in (
        ("--packets", options.packets or threads),
        ("--flows", options.flows),
        ("--sources", options.sources.count),
    ):
        if amount < threads:
            yield f"{option}: {amount}, but at least one for each of the {threads} threads"


def _unfit(options: Options, interface: Interface) -> Iterator[str]:
    name, queues = interface.name, interface.tx_queues
    if any(queue >= queues for queue in options.queues):
        yield f"--queues {_listed(options.queues)}: {name} has {queues}, the first is 0"
    largest = interface.mtu + HEADER + FCS
    if options.size > largest:
        yield f"--size {options.size}: at most {largest}: the MTU of {name} is {interface.mtu}"
    if not interface.carrier:
        yield f"{name}: no carrier, so pktgen would send nothing"


def _listed(numbers: tuple[int, ...]) -> str:
    return ",".join(map(str, numbers))


def share(total: int, parts: int) -> tuple[int, ...]:
    """Divide into whole numbers that differ by one at most."""
    return tuple(total // parts + (n < total % parts) for n in range(parts))


def layout(flows: int, sources: Span, options: Options) -> tuple[Span, Span]:
    """Return addresses and ports that make at least so many flows, with as few ports as can be.

    Many addresses rather than many ports: by default network cards choose the receive queue of UDP
    by addresses alone. Raises ValueError where there are not enough.
    """
    addresses_at_most = 1 if options.vip.version == IPV6 else sources.count
    for ports in range(1, min(flows, options.source_ports.count) + 1):
        addresses = -(-flows // ports)
        while not options.random and gcd(addresses, ports) > 1:
            addresses += 1
        if addresses <= addresses_at_most:
            return sources.begin(addresses), options.source_ports.begin(ports)
    rule = "pktgen varies only the port of an IPv6 source: " if options.vip.version == IPV6 else ""
    raise ValueError(
        f"--flows {options.flows}: {rule}a thread has {addresses_at_most} source addresses and "
        f"{options.source_ports.count} ports, too few for its {flows} flows"
    )


def delay_ns(options: Options) -> int:
    """Return the time between two bursts of a thread; 0: none.

    pktgen's own ``ratep`` and ``rate`` set the same delay, but as if a burst were one packet.
    """
    if not options.pps:
        return 0
    delay = round(options.burst * len(options.cpus) * 1e9 / options.pps)
    if not 0 < delay < NEVER_NS:
        raise ValueError(
            f"--pps {options.pps}: {delay} ns between two bursts of a thread; 1 to {NEVER_NS - 1}"
        )
    return delay


def plan(options: Options, made: tuple[Sender, ...]) -> tuple[Command, ...]:
    """Return what is to be written, in order, before ``start``."""
    adding = [Command(f"{THREAD}{sender.cpu}", f"add_device {sender.device}") for sender in made]
    setting = [
        Command(sender.device, text) for sender in made for text in _settings(options, sender)
    ]
    return (*adding, *setting)


def _settings(options: Options, sender: Sender) -> Iterator[str]:
    yield from _headers(options, sender)
    yield f"pkt_size {options.size - FCS}"
    yield f"queue_map_min {sender.queue}"
    yield f"queue_map_max {sender.queue}"
    yield f"delay {sender.delay_ns}"
    yield f"count {sender.packets}"
    if options.clone:
        yield f"clone_skb {options.clone}"
    if options.burst > 1:
        yield f"burst {options.burst}"
    yield "flag NO_TIMESTAMP"
    if options.random:
        yield "flag IPSRC_RND"
        yield "flag UDPSRC_RND"


def _headers(options: Options, sender: Sender) -> Iterator[str]:
    yield f"dst_mac {options.mac}"
    first, last, host = sender.sources.first, sender.sources.last, type(options.vip)
    if options.vip.version == IPV6:
        yield f"dst6 {options.vip}"
        yield f"src6 {host(first)}"
        yield "flag UDPCSUM"  # RFC 8200 section 8.1: UDP over IPv6 without checksum is discarded
    else:
        yield f"dst_min {options.vip}"
        yield f"src_min {host(first)}"
        # The end is part of the range when it is walked through, and is not when it is random.
        yield f"src_max {host(last + options.random)}"
    yield f"udp_src_min {sender.source_ports.first}"
    yield f"udp_src_max {sender.source_ports.last + 1}"
    yield f"udp_dst_min {options.port}"
    yield f"udp_dst_max {options.port}"
