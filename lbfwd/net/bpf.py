"""Classic BPF instructions and the two ways to join them: one after another, and ``branch``.

A block is a tuple of instructions that is entered at its first one and either returns or falls
through its end, so blocks can be put together in any order without labels. Instruction set and
ancillary loads: Linux Documentation/networking/filter.rst, include/uapi/linux/filter.h and
bpf_common.h.
"""

import ctypes
import socket
import struct
from typing import NamedTuple

_SO_ATTACH_FILTER = 26
MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS
_FAR = 255  # a conditional jump's distance is 8 bits


class Instruction(NamedTuple):
    """One ``struct sock_filter``."""

    code: int
    jt: int
    jf: int
    k: int


Program = tuple[Instruction, ...]


class ProgramTooLong(ValueError):  # noqa: N818 - the name says what is wrong
    """The program has more instructions than the kernel takes (4096)."""


# Instruction codes. A is the accumulator, X the index register, M[k] the scratch memory.
LD_W = 0x20  # A = 32 bits of the packet at k (big-endian), or an ancillary value
LD_H = 0x28
LD_B = 0x30
LD_W_X = 0x40  # A = 32 bits of the packet at X + k
LD_LEN = 0x80  # A = length of the packet
LD_MEM = 0x60
LDX_MEM = 0x61
LDX_IHL = 0xB1  # X = 4 * (low 4 bits of the packet's byte at k)
LD_IMM = 0x00
ST = 0x02
ADD = 0x04
SUB = 0x14
SUB_X = 0x1C
MUL = 0x24
RSH = 0x74
AND = 0x54
MOD = 0x94
XOR_X = 0xAC
JA = 0x05
JEQ = 0x15
JGE = 0x35
JGE_X = 0x3D
JSET = 0x45
RET = 0x06
RET_A = 0x16
TAX = 0x07

# Ancillary values: loads at these offsets (SKF_AD_OFF + SKF_AD_…), as unsigned 32 bits.
_AD = 0x1_0000_0000 - 0x1000
AD_PROTOCOL = _AD + 0  # the ethertype, behind any VLAN tag that the kernel took out
AD_PKTTYPE = _AD + 4
AD_QUEUE = _AD + 24  # skb->queue_mapping: receive queue + 1, or 0 when none was recorded
AD_CPU = _AD + 36
AD_VLAN_TAG = _AD + 44  # the tag that the kernel took out: priority and VID
AD_VLAN_TAG_PRESENT = _AD + 48  # 1 or 0

ETH_P_IP = 0x0800
ETH_P_IPV6 = 0x86DD
PACKET_OUTGOING = 4


def op(code: int, k: int = 0) -> Instruction:
    """Return an instruction that does not jump."""
    return Instruction(code, 0, 0, k)


def encode(program: Program) -> bytes:
    """Return ``struct sock_filter[]``: 8 bytes an instruction, the host's byte order.

    Raises ProgramTooLong above 4096 instructions.
    """
    check_length(program)
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def attach(sock: socket.socket, program: Program) -> None:
    """Make it the socket's filter, in place of any other (socket(7)). Raises OSError."""
    encoded = ctypes.create_string_buffer(encode(program))
    fprog = struct.pack("@HP", len(program), ctypes.addressof(encoded))  # struct sock_fprog
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)


def check_length(program: Program) -> Program:
    """Return the program, or raise ProgramTooLong."""
    if len(program) > MAX_INSTRUCTIONS:
        raise ProgramTooLong(
            f"packet program of {len(program)} instructions: the kernel takes {MAX_INSTRUCTIONS}"
        )
    return program


def branch(code: int, k: int, then: Program, otherwise: Program) -> Program:
    """Return a block that runs ``then`` where the test holds and ``otherwise`` where not.

    Either may fall through: both then continue behind the block. Blocks too long for an 8-bit
    jump are reached by an unconditional one.
    """
    if otherwise and _falls_through(then):
        then = (*then, op(JA, len(otherwise)))
    if len(then) <= _FAR:
        return (Instruction(code, 0, len(then), k), *then, *otherwise)
    return (Instruction(code, 1, 0, k), op(JA, len(then)), *then, *otherwise)


def _falls_through(block: Program) -> bool:
    """Whether control can leave the block by its end."""
    if not block or block[-1].code not in (RET, RET_A):
        return True
    return any(_reaches(at, instruction, len(block)) for at, instruction in enumerate(block))


def _reaches(at: int, instruction: Instruction, target: int) -> bool:
    code, jt, jf, k = instruction
    if code == JA:
        return at + 1 + k == target
    return code in (JEQ, JGE, JGE_X, JSET) and target in (at + 1 + jt, at + 1 + jf)
