"""The socket filter of a receiving ring: which frames of an interface are for our VIPs.

Offsets are counted from the Ethernet header, where a SOCK_RAW socket's filter starts to read.
(SKF_NET_OFF would count from the network header, but before Linux 6.16 it reads the linear part
of a buffer only, and a driver that keeps headers in page fragments would lose every frame. The
kernel takes the outer VLAN tag out of the frame before, so the header is always 14 bytes.)
"""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address

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
_WORDS = {4: 1, 6: 4}  # 32-bit words in an address
_LINEAR = 8  # values tried one after another at a leaf of the search


def vip_filter(vips: Iterable[IPAddress]) -> Program:
    """Return the program that admits received frames whose IP destination is one of ``vips``.

    Frames with a VLAN tag are admitted alike: the worker names why it drops them. So is an IP
    frame that ends before its destination address, which the worker counts as truncated (no
    Ethernet is that short, but veth is). What this machine sends itself is not admitted.

    Raises ProgramTooLong above 4096 instructions: some 3,000 VIPs.
    """
    # PACKET_IGNORE_OUTGOING does not hold in a fanout group on older kernels.
    outgoing = bpf.branch(bpf.JEQ, bpf.PACKET_OUTGOING, DROP_ALL, destination_filter(vips))
    return bpf.check_length((op(bpf.LD_W, bpf.AD_PKTTYPE), *outgoing))


def destination_filter(addresses: Iterable[IPAddress]) -> Program:
    """Return the block that admits frames to one of these addresses, sent or received."""
    found = sorted(set(addresses), key=lambda address: (address.version, int(address)))
    v4 = _family([address for address in found if address.version == 4], _IPV4_DESTINATION)
    v6 = _family([address for address in found if address.version == 6], _IPV6_DESTINATION)
    other = bpf.branch(bpf.JEQ, bpf.ETH_P_IPV6, v6, DROP_ALL)
    return (op(bpf.LD_W, bpf.AD_PROTOCOL), *bpf.branch(bpf.JEQ, bpf.ETH_P_IP, v4, other))


def _family(vips: Sequence[IPAddress], offset: int) -> Program:
    """Return the block that decides about frames of one family."""
    if not vips:
        return DROP_ALL
    words = [_words(vip) for vip in vips]
    end = offset + 4 * len(words[0])
    return (op(bpf.LD_LEN), *bpf.branch(bpf.JGE, end, _match(words, offset), ADMIT_ALL))


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
