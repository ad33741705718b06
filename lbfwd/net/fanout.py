"""The fanout program: which worker's ring a received frame goes to.

It computes the slot over an explicit number of workers, so that members that come and go move no
flow (the kernel's own hash mode scales by the number of members). A fanout program starts to
read at the network header, behind any VLAN tag. Kernel: net/packet/af_packet.c, fanout_demux_bpf.
"""

from collections.abc import Collection, Sequence

from lbfwd.encap import PEER_MARK
from lbfwd.net import bpf
from lbfwd.net.bpf import Instruction, Program, op

MODES = ("hash", "cpu", "queue")

# Offsets from the network header: RFC 791 section 3.1, RFC 8200 sections 3 and 4.5.
_IPV4_HEADER, _IPV6_HEADER = 20, 40
_IPV4_IDENTIFICATION, _IPV4_FLAGS, _IPV4_PROTOCOL = 4, 6, 9
_IPV4_ADDRESSES = (12, 16)
_IPV4_FRAGMENT = 0x3FFF  # more fragments, or an offset
_IPV6_NEXT_HEADER = 6
_IPV6_ADDRESSES = tuple(range(8, 40, 4))
_IPV6_IDENTIFICATION = 44
_FRAGMENT_HEADER = 44  # next header
_TCP, _UDP, _GRE = 6, 17, 47
_GRE_HEADER = 4
_IPV4_PLAIN = 0x45  # version 4, no options

# Multipliers of MurmurHash3's finalizer; the start is any number (here, of the golden ratio).
_START, _MULTIPLY, _AGAIN = 0x9E3779B9, 0x85EBCA6B, 0xC2B2AE35
_HASH = 0  # scratch memory cell
_TRIES = 8


def fanout_program(
    mode: str,
    cpus: Sequence[int],
    alive: Collection[int],
    members: Sequence[int] | None = None,
) -> Program:
    """Return the program that yields a frame's slot, 0 to ``len(cpus) - 1``.

    ``hash``: by source, destination, protocol and TCP or UDP ports; fragments, those in another
    node's GRE too, by source, destination and identification only, so that a datagram's meet; other
    protocols by addresses. ``cpu``: the slot of the CPU that received the frame. ``queue``: the
    receive queue modulo the slots. Where these say nothing the hash decides.

    A slot that is not ``alive`` gets nothing: its frames are spread over the others by hash, and
    no other flow moves. With no slot alive, every flow stays with its own and waits there.

    The program's slot is the kernel's member number. Members are numbered as they join, and anew
    in the order of their sockets' creation when the link comes up: create them in slot order.
    Elsewhere, ``members`` says what it yields for each slot (``net.members``).

    Raises ValueError on an unknown mode, no cpus, or a slot outside of them.
    """
    slots = range(len(cpus))
    living, dead = _division(slots, alive)
    # Set first of all: the kernel's check of scratch memory follows the text, also past a return.
    start = (op(bpf.LD_IMM, _START), op(bpf.ST, _HASH))
    numbers = slots if members is None else members
    direct = _direct(mode, cpus, living, dead, numbers)
    hashed = _hash(numbers[living[0]]) + _choose(living, dead, numbers)
    return bpf.check_length(start + direct + hashed)


def _division(slots: Sequence[int], alive: Collection[int]) -> tuple[list[int], list[int]]:
    """Return living and dead slots; with none alive, all count as living."""
    if not slots or not set(alive) <= set(slots):
        raise ValueError(f"alive slots {sorted(alive)} of {len(slots)} workers: no such slot")
    living = sorted(alive) or list(slots)
    return living, [slot for slot in slots if slot not in living]


def _direct(
    mode: str,
    cpus: Sequence[int],
    living: Sequence[int],
    dead: Sequence[int],
    members: Sequence[int],
) -> Program:
    """Return the block that returns the slot where the hash need not decide."""
    if mode == "hash":
        return ()
    if mode == "cpu":
        return _by_cpu(cpus, living, members)
    if mode == "queue":
        return _by_queue(dead, members)
    raise ValueError(f"fanout = {mode!r}: must be one of {', '.join(MODES)}")


def _by_cpu(cpus: Sequence[int], living: Sequence[int], members: Sequence[int]) -> Program:
    block: Program = (op(bpf.LD_W, bpf.AD_CPU),)
    for slot in living:
        block += bpf.branch(bpf.JEQ, cpus[slot], (op(bpf.RET, members[slot]),), ())
    return block


def _by_queue(dead: Sequence[int], members: Sequence[int]) -> Program:
    recorded = (op(bpf.SUB, 1), op(bpf.MOD, len(members)), *_return_unless(dead, members))
    return (op(bpf.LD_W, bpf.AD_QUEUE), *bpf.branch(bpf.JEQ, 0, (), recorded))


def _hash(other: int) -> Program:
    """Return the block that leaves the flow's hash in memory; not IP: returns slot ``other``."""
    not_ip = (op(bpf.RET, other),)
    v6 = (op(bpf.LD_LEN), *bpf.branch(bpf.JGE, _IPV6_HEADER, _ipv6(), not_ip))
    v4 = (op(bpf.LD_LEN), *bpf.branch(bpf.JGE, _IPV4_HEADER, _ipv4(), not_ip))
    rest = bpf.branch(bpf.JEQ, bpf.ETH_P_IPV6, v6, not_ip)
    return (op(bpf.LD_W, bpf.AD_PROTOCOL), *bpf.branch(bpf.JEQ, bpf.ETH_P_IP, v4, rest))


def _ipv4() -> Program:
    ports = (op(bpf.LDX_IHL, 0), *_if_four_bytes_at_x(_mix(op(bpf.LD_W_X, 0))))
    plain = bpf.branch(bpf.JEQ, _IPV4_PLAIN, _handed_over(_IPV4_HEADER), ())
    other = bpf.branch(bpf.JEQ, _GRE, (op(bpf.LD_B, 0), *plain), _if_ports(_mix() + ports))
    whole = (op(bpf.LD_B, _IPV4_PROTOCOL), *other)
    return (
        *_addresses(_IPV4_ADDRESSES),
        op(bpf.LD_H, _IPV4_FLAGS),
        *bpf.branch(bpf.JSET, _IPV4_FRAGMENT, _identification4(), whole),
    )


def _identification4(at: int = 0) -> Program:
    return _mix(op(bpf.LD_H, at + _IPV4_IDENTIFICATION))


def _ipv6() -> Program:
    ports = _mix() + _if_long_enough(_IPV6_HEADER + 4, op(bpf.LD_W, _IPV6_HEADER))
    other = bpf.branch(bpf.JEQ, _GRE, _handed_over(_IPV6_HEADER), _if_ports(ports))
    return (
        *_addresses(_IPV6_ADDRESSES),
        op(bpf.LD_B, _IPV6_NEXT_HEADER),
        *bpf.branch(bpf.JEQ, _FRAGMENT_HEADER, _identification6(), other),
    )


def _identification6(at: int = 0) -> Program:
    place = at + _IPV6_IDENTIFICATION
    return _if_long_enough(place + 4, op(bpf.LD_W, place))


def _handed_over(gre: int) -> Program:
    """Hash the fragment in marked GRE as if it had come by itself."""
    inner, mark = gre + _GRE_HEADER, PEER_MARK << 16
    anew = (op(bpf.LD_IMM, _START), op(bpf.ST, _HASH))
    v4 = (*anew, *_addresses(_IPV4_ADDRESSES, inner), *_identification4(inner))
    v6 = (
        *anew,
        *_addresses(_IPV6_ADDRESSES, inner),
        op(bpf.LD_B, inner + _IPV6_NEXT_HEADER),
        *bpf.branch(bpf.JEQ, _FRAGMENT_HEADER, _identification6(inner), ()),
    )
    whole6 = _if_longer(inner + _IPV6_HEADER, v6)
    other = bpf.branch(bpf.JEQ, mark | bpf.ETH_P_IPV6, whole6, ())
    either = (op(bpf.LD_W, gre), *bpf.branch(bpf.JEQ, mark | bpf.ETH_P_IP, v4, other))
    return _if_longer(inner + _IPV4_HEADER, either)


def _addresses(offsets: Sequence[int], at: int = 0) -> Program:
    block: Program = ()
    for offset in offsets:
        block += _mix(op(bpf.LD_W, at + offset))
    return block


def _if_ports(block: Program) -> Program:
    """Run the block where A is a protocol with ports."""
    # TCP skips the test for UDP.
    return (Instruction(bpf.JEQ, 1, 0, _TCP), *bpf.branch(bpf.JEQ, _UDP, block, ()))


def _if_long_enough(length: int, load: Instruction) -> Program:
    return _if_longer(length, _mix(load))


def _if_longer(length: int, block: Program) -> Program:
    # A load behind the packet's end would end the program with slot 0, which may be dead.
    return (op(bpf.LD_LEN), *bpf.branch(bpf.JGE, length, block, ()))


def _if_four_bytes_at_x(block: Program) -> Program:
    rest = (op(bpf.SUB_X), *bpf.branch(bpf.JGE, 4, block, ()))
    return (op(bpf.LD_LEN), *bpf.branch(bpf.JGE_X, 0, rest, ()))


def _mix(*load: Instruction) -> Program:
    """Mix A (after ``load``, if any) into the hash: xor, multiply, fold the high bits down."""
    return (
        *load,
        op(bpf.LDX_MEM, _HASH),
        op(bpf.XOR_X),
        op(bpf.MUL, _MULTIPLY),
        *_fold(),
    )


def _fold() -> Program:
    return (op(bpf.TAX), op(bpf.RSH, 15), op(bpf.XOR_X), op(bpf.ST, _HASH))


def _choose(living: Sequence[int], dead: Sequence[int], members: Sequence[int]) -> Program:
    """Return the block that ends the program with a living slot.

    A dead slot is answered by hashing again, so that a flow's first living choice depends on
    nobody else's death. What is still without a slot after some tries is dealt out.
    """
    tries = _TRIES if dead else 1
    block: Program = ()
    for _ in range(tries):
        rehash = (op(bpf.LD_MEM, _HASH), op(bpf.ADD, _START), op(bpf.MUL, _AGAIN), *_fold())
        block += (*rehash, op(bpf.MOD, len(members)), *_return_unless(dead, members))
    if not dead:
        return block
    block += (op(bpf.LD_MEM, _HASH), op(bpf.MOD, len(living)))
    for index, slot in enumerate(living[:-1]):
        block += bpf.branch(bpf.JEQ, index, (op(bpf.RET, members[slot]),), ())
    return (*block, op(bpf.RET, members[living[-1]]))


def _return_unless(dead: Sequence[int], members: Sequence[int]) -> Program:
    """Return the member of slot A; fall through where it is dead."""
    ending: Program = ()
    for slot, number in enumerate(members):
        if number != slot:
            ending += bpf.branch(bpf.JEQ, slot, (op(bpf.RET, number),), ())
    ending = (*ending, op(bpf.RET_A))
    count = len(dead) - 1 + len(ending)
    return (*(Instruction(bpf.JEQ, count - i, 0, slot) for i, slot in enumerate(dead)), *ending)
