"""A classic BPF machine, written from Linux Documentation/networking/filter.rst.

Shares nothing with lbfwd.net.bpf: it reads the encoded ``struct sock_filter[]``.
"""

import operator
import struct
from dataclasses import dataclass

MASK = 0xFFFFFFFF


@dataclass(frozen=True)
class Packet:
    data: bytes
    protocol: int
    pkttype: int = 0
    queue: int = 0
    cpu: int = 0
    tag: int | None = None  # what the kernel took out of the frame


class InvalidProgramError(Exception):
    """The kernel would refuse this program."""


class _OutsideError(Exception):
    """A load beyond the packet: the program ends with 0."""


_ALU = {
    0x00: operator.add,
    0x10: operator.sub,
    0x20: operator.mul,
    0x30: operator.floordiv,
    0x40: operator.or_,
    0x50: operator.and_,
    0x60: operator.lshift,
    0x70: operator.rshift,
    0x90: operator.mod,
    0xA0: operator.xor,
}
_TESTS = {
    0x10: operator.eq,
    0x20: operator.gt,
    0x30: operator.ge,
    0x40: lambda a, b: bool(a & b),
}


def decode(raw):
    program = list(struct.iter_unpack("=HBBI", raw))
    if not 0 < len(program) <= 4096:
        raise InvalidProgramError(f"{len(program)} instructions")
    for at, (code, jt, jf, k) in enumerate(program):
        if code & 7 == 5:
            jumps = (k,) if code & 0xF0 == 0 else (jt, jf)
            if any(at + 1 + jump >= len(program) for jump in jumps):
                raise InvalidProgramError(f"instruction {at} jumps out of the program")
    if program[-1][0] & 7 != 6:
        raise InvalidProgramError("the last instruction does not return")
    _check_memory(program)
    return program


def _check_memory(program):
    """What check_load_and_stores (net/core/filter.c) refuses; it is blind for returns."""
    masks, valid = [0xFFFF] * (len(program) + 1), 0
    for at, (code, jt, jf, k) in enumerate(program):
        valid &= masks[at]
        if code in (0x02, 0x03):
            valid |= 1 << k
        elif code in (0x60, 0x61) and not valid & 1 << k:
            raise InvalidProgramError(f"instruction {at} reads M[{k}] before it is written")
        elif code & 7 == 5:
            for jump in (k,) if code & 0xF0 == 0 else (jt, jf):
                masks[at + 1 + jump] &= valid
            valid = 0xFFFF


def run(raw, packet):
    """Return what the program returns for the packet."""
    return execute(decode(raw), packet)


def execute(program, packet):
    try:
        return _execute(program, packet)
    except _OutsideError:
        return 0


def _execute(program, packet):
    a = x = pc = 0
    memory = [0] * 16
    while True:
        code, jt, jf, k = program[pc]
        pc += 1
        kind = code & 7
        if kind == 6:
            return a if code & 0x18 == 0x10 else k
        if kind == 5:
            pc += _jump(code, (jt, jf, k), a, x if code & 8 else k)
        elif kind in (2, 3):
            memory[k] = a if kind == 2 else x
        else:
            a, x = _compute(code, k, (a, x), memory, packet)


def _jump(code, distances, a, operand):
    jt, jf, always = distances
    if code & 0xF0 == 0:
        return always
    return jt if _TESTS[code & 0xF0](a, operand) else jf


def _compute(code, k, registers, memory, packet):
    a, x = registers
    kind = code & 7
    if kind == 0:
        return _load(code, k, x, memory, packet), x
    if kind == 1:
        return a, _load_x(code, k, memory, packet)
    if kind == 4:
        return _ALU[code & 0xF0](a, x if code & 8 else k) & MASK, x
    return (x, x) if code & 0xF8 == 0x80 else (a, a)


def _load(code, k, x, memory, packet):
    mode, size = code & 0xE0, {0x00: 4, 0x08: 2, 0x10: 1}[code & 0x18]
    if mode == 0x00:
        return k
    if mode == 0x60:
        return memory[k]
    if mode == 0x80:
        return len(packet.data)
    if mode == 0x20 and k >= 0xFFFFF000:
        ancillary = {0: packet.protocol, 4: packet.pkttype, 24: packet.queue, 36: packet.cpu,
                     44: packet.tag or 0, 48: int(packet.tag is not None)}  # fmt: skip
        return ancillary[k - 0xFFFFF000]
    return _bytes(packet, k + (x if mode == 0x40 else 0), size)


def _load_x(code, k, memory, packet):
    mode = code & 0xE0
    if mode == 0xA0:
        return 4 * (_bytes(packet, k, 1) & 0x0F)
    return memory[k] if mode == 0x60 else k


def _bytes(packet, offset, size):
    chunk = packet.data[offset : offset + size]
    if len(chunk) < size:
        raise _OutsideError
    return int.from_bytes(chunk, "big")
