"""The socket filter of a receiving ring: which frames of an interface are for our VIPs.

Offsets are counted from the Ethernet header, where a SOCK_RAW socket's filter starts to read.
(SKF_NET_OFF would count from the network header, but before Linux 6.16 it reads the linear part
of a buffer only, and a driver that keeps headers in page fragments would lose every frame. The
kernel takes the outer VLAN tag out of the frame before, so the header is always 14 bytes.)
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from itertools import chain

from lbfwd.encap import PEER_MARK
from lbfwd.net import bpf
from lbfwd.net.bpf import Instruction, Program, op

IPAddress = IPv4Address | IPv6Address
Cases = Sequence[tuple[int, Program]]

_ADMIT = op(bpf.RET, 0xFFFFFFFF)
_DROP = op(bpf.RET, 0)
ADMIT_ALL: Program = (_ADMIT,)
DROP_ALL: Program = (_DROP,)

_ETHERNET = 14
_IPV4_DESTINATION = _ETHERNET + 16  # RFC 791, section 3.1
_IPV6_DESTINATION = _ETHERNET + 24  # RFC 8200, section 3
_IPV4_PLAIN = 0x45  # version 4, no options
_GRE = 47
_WORDS = {4: 1, 6: 4}  # 32-bit words in an address
_VID = 0xFFF  # the low 12 bits of a tag (IEEE 802.1Q, 9.6)
_LINEAR = 8  # values tried one after another at a leaf of the search


@dataclass(frozen=True)
class Peers:
    """Between whom fragments are handed over: this node's addresses, the other nodes'."""

    own: frozenset[IPAddress] = frozenset()
    others: frozenset[IPAddress] = frozenset()


NO_PEERS = Peers()


def vip_filter(
    vips: Iterable[IPAddress], elsewhere: Collection[int] = (), peers: Peers = NO_PEERS
) -> Program:
    """Return the program that admits received frames whose IP destination is one of ``vips``.

    So are fragments that another node hands over: GRE from an address of ``peers.others`` to one of
    ``peers.own`` with the mark of ``_fleet.h``, right behind an IP header without options.

    Frames with a VLAN tag are admitted alike: the worker names why it drops them; not those of the
    VLANs in ``elsewhere`` (VIDs), which are received on interfaces of their own. Admitted is an IP
    frame that ends before its destination address, which the worker counts as truncated (no
    Ethernet is that short, but veth is). What this machine sends itself is not admitted.

    Raises ProgramTooLong above 4096 instructions: some 3,000 VIPs.
    """
    # PACKET_IGNORE_OUTGOING does not hold in a fanout group on older kernels.
    received = (*_drop_vlans(elsewhere), *_admit(vips, peers))
    outgoing = bpf.branch(bpf.JEQ, bpf.PACKET_OUTGOING, DROP_ALL, received)
    return bpf.check_length((op(bpf.LD_W, bpf.AD_PKTTYPE), *outgoing))


def _drop_vlans(vlans: Collection[int]) -> Program:
    """Return the block that drops frames of these VLANs; others fall through."""
    if not vlans:
        return ()
    tests = [bpf.branch(bpf.JEQ, vlan, DROP_ALL, ()) for vlan in sorted(vlans)]
    tagged = (op(bpf.LD_W, bpf.AD_VLAN_TAG), op(bpf.AND, _VID), *chain.from_iterable(tests))
    return (op(bpf.LD_W, bpf.AD_VLAN_TAG_PRESENT), *bpf.branch(bpf.JEQ, 1, tagged, ()))


def destination_filter(addresses: Iterable[IPAddress]) -> Program:
    """Return the block that admits frames to one of these addresses, sent or received."""
    return _admit(addresses, NO_PEERS)


def _admit(addresses: Iterable[IPAddress], peers: Peers) -> Program:
    found = sorted(set(addresses), key=lambda address: (address.version, int(address)))
    handed4, handed6 = _handed_over(peers, 4), _handed_over(peers, 6)
    v4 = _family([a for a in found if a.version == 4], _IPV4_DESTINATION, handed4)
    v6 = _family([a for a in found if a.version == 6], _IPV6_DESTINATION, handed6)
    other = bpf.branch(bpf.JEQ, bpf.ETH_P_IPV6, v6, DROP_ALL)
    return (op(bpf.LD_W, bpf.AD_PROTOCOL), *bpf.branch(bpf.JEQ, bpf.ETH_P_IP, v4, other))


def _family(vips: Sequence[IPAddress], offset: int, handed_over: Program) -> Program:
    """Return the block that decides about frames of one family."""
    if not vips:
        return handed_over + DROP_ALL
    words = [_words(vip) for vip in vips]
    end = offset + 4 * len(words[0])
    whole = handed_over + _match(words, offset)
    return (op(bpf.LD_LEN), *bpf.branch(bpf.JGE, end, whole, ADMIT_ALL))


def _handed_over(peers: Peers, version: int) -> Program:
    """Return the block that decides about frames to this node's own address; others fall through.

    A load behind the frame's end drops it.
    """
    own = [_words(address) for address in peers.own if address.version == version]
    others = sorted(_words(address) for address in peers.others if address.version == version)
    block: Program = ()
    for words in own if others else ():
        found = _marked(others, version)
        for n, word in reversed(list(enumerate(words))):
            at = (_IPV4_DESTINATION if version == 4 else _IPV6_DESTINATION) + 4 * n
            found = (op(bpf.LD_W, at), *bpf.branch(bpf.JEQ, word, found, ()))
        block += found
    return block


def _marked(sources: Sequence[tuple[int, ...]], version: int) -> Program:
    """Return the block that admits marked GRE from these addresses, and drops all else."""
    protocol, source, gre = (23, 26, 34) if version == 4 else (20, 22, 54)
    checks = [(bpf.LD_B, protocol, _GRE), (bpf.LD_H, gre, PEER_MARK)]
    if version == 4:
        checks.insert(0, (bpf.LD_B, _ETHERNET, _IPV4_PLAIN))
    block = _match(sources, source)
    for load, at, value in reversed(checks):
        block = (op(load, at), *bpf.branch(bpf.JEQ, value, block, DROP_ALL))
    return block


def _words(vip: IPAddress) -> tuple[int, ...]:
    count = _WORDS[vip.version]
    return tuple(int(vip) >> 32 * (count - 1 - i) & 0xFFFFFFFF for i in range(count))


def _match(addresses: Sequence[tuple[int, ...]], offset: int) -> Program:
    """Return the block that admits these addresses (sorted, as words) at ``offset``."""
    tails: dict[int, list[tuple[int, ...]]] = {}
    for word, *rest in addresses:
        tails.setdefault(word, []).append(tuple(rest))
    cases = [
        (word, _match(rest, offset + 4) if rest[0] else ADMIT_ALL) for word, rest in tails.items()
    ]
    return (op(bpf.LD_W, offset), *_search(cases))


def _search(cases: Cases) -> Program:
    """Return a binary search for A among the cases' values; no case: drop."""
    if all(block == ADMIT_ALL for _, block in cases) and len(cases) <= _LINEAR:
        return _any_of([value for value, _ in cases])
    if len(cases) == 1:
        ((value, block),) = cases
        return bpf.branch(bpf.JEQ, value, block, DROP_ALL)
    # Below the middle every leaf is full: the shortest program of the same depth.
    middle = 1 << (len(cases) - 1).bit_length() - 1
    upper, lower = _search(cases[middle:]), _search(cases[:middle])
    return bpf.branch(bpf.JGE, cases[middle][0], upper, lower)


def _any_of(values: Sequence[int]) -> Program:
    last = len(values) - 1
    tests = [Instruction(bpf.JEQ, last - i + 1, 0, value) for i, value in enumerate(values)]
    return (*tests, _DROP, _ADMIT)
