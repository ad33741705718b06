"""Runs a packet program as the kernel would, to tell what it would answer. Pure.

Linux Documentation/networking/filter.rst; only the instructions of ``bpf``, and only programs that
the kernel has accepted.
"""

from dataclasses import dataclass, field

from lbfwd.net import bpf
from lbfwd.net.bpf import Instruction, Program

_WORD = 0xFFFFFFFF
_LOADS = {bpf.LD_W: 4, bpf.LD_H: 2, bpf.LD_B: 1}


class Unknown(Exception):  # noqa: N818 - the name says what it is
    """The program asks for what only the kernel knows when a packet comes; the text says what."""


class _Outside(Exception):  # noqa: N818 - a load beyond the packet: the program ends with 0
    pass


@dataclass
class _Machine:
    packet: bytes
    ethertype: int
    a: int = 0
    x: int = 0
    memory: dict[int, int] = field(default_factory=dict)

    def load(self, at: int, size: int) -> int:
        if at == bpf.AD_PROTOCOL:
            return self.ethertype
        if at == bpf.AD_CPU:
            raise Unknown("the core that receives the packet")
        if at == bpf.AD_QUEUE:
            raise Unknown("the queue that receives the packet")
        if at + size > len(self.packet):
            raise _Outside
        return int.from_bytes(self.packet[at : at + size], "big")

    def compute(self, code: int, k: int) -> None:
        a, x = self.a, self.x
        results = {
            bpf.LD_LEN: lambda: len(self.packet),
            bpf.LD_MEM: lambda: self.memory[k],
            bpf.LD_IMM: lambda: k,
            bpf.LD_W_X: lambda: self.load(x + k, 4),
            bpf.ADD: lambda: a + k,
            bpf.SUB: lambda: a - k,
            bpf.SUB_X: lambda: a - x,
            bpf.MUL: lambda: a * k,
            bpf.RSH: lambda: a >> k,
            bpf.MOD: lambda: a % k,
            bpf.XOR_X: lambda: a ^ x,
        }
        if code in _LOADS:
            self.a = self.load(k, _LOADS[code])
        elif code == bpf.ST:
            self.memory[k] = a
        elif code == bpf.LDX_MEM:
            self.x = self.memory[k]
        elif code == bpf.LDX_IHL:
            self.x = 4 * (self.load(k, 1) & 0x0F)
        elif code == bpf.TAX:
            self.x = a
        else:
            self.a = results[code]() & _WORD

    def jump(self, instruction: Instruction) -> int:
        code, jt, jf, k = instruction
        if code == bpf.JA:
            return k
        holds = {
            bpf.JEQ: self.a == k,
            bpf.JGE: self.a >= k,
            bpf.JGE_X: self.a >= self.x,
            bpf.JSET: bool(self.a & k),
        }
        return jt if holds[code] else jf


def run(program: Program, packet: bytes, ethertype: int) -> int:
    """Return what a fanout program answers; ``packet`` from the network header on.

    Raises Unknown where that depends on how the packet is received.
    """
    machine = _Machine(packet, ethertype)
    at = 0
    try:
        while program[at].code not in (bpf.RET, bpf.RET_A):
            instruction = program[at]
            at += 1
            if instruction.code & 7 == 5:  # BPF_JMP
                at += machine.jump(instruction)
            else:
                machine.compute(instruction.code, instruction.k)
    except _Outside:
        return 0
    return machine.a if program[at].code == bpf.RET_A else program[at].k
