"""The socket filter of a capture: what does not belong to it costs the kernel a few instructions.

The kernel runs it before it copies anything (net/packet/af_packet.c, packet_rcv), and what it
returns is how much of a packet is kept. Offsets count from the Ethernet header (net/filter.py).

A sample is taken by a hash of the client's packet (identification, ports, sequence number or the
like), which is the same before and after encapsulation: of a packet that is chosen one sees both.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from lbfwd.capture.packet import ETHERNET_BYTES, GRE, GRE_BYTES, TCP
from lbfwd.config import IPAddress
from lbfwd.net import bpf
from lbfwd.net.bpf import Program, op
from lbfwd.net.filter import DROP_ALL, destination_filter

MOST_SAMPLED = 65536  # the hash has 16 bits
MOST_ADDRESSES = 2000  # that fit into a program, whatever they are

_LD_H_X = 0x48  # A = 16 bits of the packet at X + k
_OUTER_BYTES = {4: 20, 6: 40}
_PROTOCOL_AT = {4: 9, 6: 6}
_LATER_FRAGMENT = 0x1FFF
_ICMP = {4: 1, 6: 58}
# Hop-by-hop, routing, fragment, destination options: what is behind them is looked at later.
_EXTENSIONS = (0, 43, 44, 60)
_MULTIPLIERS = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D)  # primes: their products fill the high bits
_UDP_HEADER = 8
_WORD = 4


@dataclass(frozen=True)
class Pattern:
    """Which packets to a VIP are meant; None: any."""

    vip: IPAddress
    protocol: int
    port: int | None = None
    source: IPAddress | None = None
    source_port: int | None = None


@dataclass(frozen=True)
class Wanted:
    """What an interface's filter admits.

    ``before``: received packets to ``vips``; ``after``: sent ones in GRE to ``backends``. With a
    ``pattern`` only those whose client's packet it fits, or may fit (fragments, ICMP errors).
    ``sample``: one packet in so many; ``snaplen``: bytes that are kept of each.
    """

    vips: Collection[IPAddress]
    backends: Collection[IPAddress]
    pattern: Pattern | None = None
    before: bool = True
    after: bool = True
    sample: int = 1
    snaplen: int = 0xFFFFFFFF


def program(wanted: Wanted) -> Program:
    """Return the filter; what it returns for a packet is ``snaplen``, or 0."""
    admit: Program = (op(bpf.RET, wanted.snaplen),)
    received = _received(wanted, admit) if wanted.before else DROP_ALL
    sent = _sent(wanted, admit) if wanted.after else DROP_ALL
    outgoing = bpf.branch(bpf.JEQ, bpf.PACKET_OUTGOING, sent, received)
    return bpf.check_length((op(bpf.LD_W, bpf.AD_PKTTYPE), *outgoing))


def _received(wanted: Wanted, admit: Program) -> Program:
    def family(version: int) -> Program:
        return _chosen(wanted, version, ETHERNET_BYTES)

    decided = admit if wanted.pattern else _towards(wanted.vips, admit)
    return (*_by_family(bpf.AD_PROTOCOL, family), *decided)


def _sent(wanted: Wanted, admit: Program) -> Program:
    def outer(version: int) -> Program:
        gre_at = ETHERNET_BYTES + _OUTER_BYTES[version]
        inner_at = gre_at + GRE_BYTES
        inner = _by_family(gre_at + 2, lambda inside: _chosen(wanted, inside, inner_at))
        protocol = op(bpf.LD_B, ETHERNET_BYTES + _PROTOCOL_AT[version])
        return (protocol, *_only(GRE), *inner)

    return (*_by_family(bpf.AD_PROTOCOL, outer), *_towards(wanted.backends, admit))


def _by_family(at: int, block: Callable[[int], Program]) -> Program:
    """Return what goes on with the block of the IP version that an ethertype at ``at`` names."""
    load = bpf.LD_W if at == bpf.AD_PROTOCOL else bpf.LD_H
    other = bpf.branch(bpf.JEQ, bpf.ETH_P_IPV6, block(6), DROP_ALL)
    return (op(load, at), *bpf.branch(bpf.JEQ, bpf.ETH_P_IP, block(4), other))


def _towards(addresses: Collection[IPAddress], admit: Program) -> Program:
    """Return what admits frames to these addresses; of too many for a program, to any."""
    if len(addresses) > MOST_ADDRESSES:
        return admit
    block = destination_filter(addresses)
    return tuple(admit[0] if i.code == bpf.RET and i.k else i for i in block)


def _chosen(wanted: Wanted, version: int, at: int) -> Program:
    """Return what drops a client's packet, its IP header at ``at``, that is not wanted."""
    fits = _fits(wanted.pattern, version, at) if wanted.pattern else ()
    return (*fits, *_sample(version, at, wanted.sample))


def _only(value: int) -> Program:
    """Return what drops the packet unless A is this value."""
    return bpf.branch(bpf.JEQ, value, (), DROP_ALL)


def _address(address: IPAddress, at: int) -> Program:
    """Return what drops the packet unless this address stands at ``at``."""
    raw = address.packed
    words = [int.from_bytes(raw[i : i + _WORD], "big") for i in range(0, len(raw), _WORD)]
    tests = ((op(bpf.LD_W, at + _WORD * i), *_only(word)) for i, word in enumerate(words))
    return tuple(instruction for test in tests for instruction in test)


def _fits(pattern: Pattern, version: int, at: int) -> Program:
    if pattern.vip.version != version:
        return DROP_ALL
    length = len(pattern.vip.packed)
    source_at = at + _OUTER_BYTES[version] - 2 * length
    exact: Program = _only(pattern.protocol)
    if pattern.source:
        exact = (*exact, *_address(pattern.source, source_at))
    exact = (*exact, *_ports(pattern, version, at))
    # What may belong to the flow although it shows other addresses or no ports.
    maybe = (_ICMP[version], *(_EXTENSIONS if version == 6 else ()))
    for protocol in maybe:
        exact = bpf.branch(bpf.JEQ, protocol, (), exact)
    load = op(bpf.LD_B, at + _PROTOCOL_AT[version])
    return (*_address(pattern.vip, source_at + length), load, *exact)


def _ports(pattern: Pattern, version: int, at: int) -> Program:
    tests: Program = ()
    if pattern.port is not None:
        tests = (op(_LD_H_X, at + 2), *_only(pattern.port))
    if pattern.source_port is not None:
        tests = (*tests, op(_LD_H_X, at), *_only(pattern.source_port))
    if not tests:
        return ()
    if version == 6:
        return (op(bpf.LD_IMM, _OUTER_BYTES[6]), op(bpf.TAX), *tests)
    first = (op(bpf.LDX_IHL, at), *tests)
    return (op(bpf.LD_H, at + 6), *bpf.branch(bpf.JSET, _LATER_FRAGMENT, (), first))


def _sample(version: int, at: int, one_in: int) -> Program:
    """Return what drops all but one packet in so many, by the hash of the client's packet."""
    if one_in == 1:
        return ()
    header: Program = (op(bpf.LDX_IHL, at),)
    identity = op(bpf.LD_H, at + 4)
    if version == 6:
        header = (op(bpf.LD_IMM, _OUTER_BYTES[6]), op(bpf.TAX))
        identity = op(bpf.LD_W, at + 20)  # of the source address: its end
    return (
        identity,
        op(bpf.MUL, _MULTIPLIERS[0]),
        op(bpf.ST, 0),
        *header,
        op(bpf.LD_W_X, at),  # ports
        op(bpf.MUL, _MULTIPLIERS[1]),
        op(bpf.ST, 1),
        *_varying(version, at),
        op(bpf.MUL, _MULTIPLIERS[2]),
        *_mixed(0),
        *_mixed(1),
        op(bpf.MUL, _MULTIPLIERS[0]),
        op(bpf.RSH, 16),
        op(bpf.MOD, one_in),
        *_only(0),
    )


def _varying(version: int, at: int) -> Program:
    """Return what loads the part of a packet that differs within a flow; X: header's length.

    TCP: the sequence number; UDP: what the datagram begins with, or its length. A UDP checksum may
    be unfinished before encapsulation, so it has no part in this.
    """
    sequence = (op(bpf.LD_W_X, at + _WORD),)
    length = op(_LD_H_X, at + 4)
    payload = (op(bpf.LD_W_X, at + _UDP_HEADER),)
    datagram = (length, *bpf.branch(bpf.JGE, _UDP_HEADER + _WORD, payload, ()))
    protocol = op(bpf.LD_B, at + _PROTOCOL_AT[version])
    return (protocol, *bpf.branch(bpf.JEQ, TCP, sequence, datagram))


def _mixed(place: int) -> Program:
    """Return what joins A with a word of the scratch memory."""
    return (op(bpf.TAX), op(bpf.LD_MEM, place), op(bpf.XOR_X))
