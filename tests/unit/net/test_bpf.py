import pytest

from lbfwd.net import bpf
from lbfwd.net.bpf import op
from tests.unit.net.cbpf import Packet, decode, run

LENGTH = op(bpf.LD_LEN)


def returns(value, padding=0):
    return (*[op(bpf.LD_IMM, 1)] * padding, op(bpf.RET, value))


def falls(value, padding=0):
    return (*[op(bpf.LD_IMM, 1)] * padding, op(bpf.LD_IMM, value))


def outcome(block, length):
    return run(bpf.encode((LENGTH, *block, op(bpf.RET_A))), Packet(bytes(length), 0))


def test_an_instruction_is_encoded_as_the_kernel_documents_it():
    # Documentation/networking/filter.rst: "ldh [12]; jne #0x806, drop" on a little-endian machine
    program = (op(bpf.LD_H, 12), bpf.Instruction(bpf.JEQ, 0, 1, 0x806))
    assert bpf.encode(program) == bytes.fromhex("2800 00 00 0c000000  1500 00 01 06080000")


@pytest.mark.parametrize("then_padding", [0, 253, 254, 255, 256, 300])
@pytest.mark.parametrize("else_padding", [0, 254, 255, 256])
@pytest.mark.parametrize("then_kind", [returns, falls])
@pytest.mark.parametrize("else_kind", [returns, falls])
def test_branch_takes_the_right_side_at_any_distance(
    then_padding, else_padding, then_kind, else_kind
):
    block = bpf.branch(bpf.JEQ, 7, then_kind(11, then_padding), else_kind(22, else_padding))
    assert outcome(block, 7) == 11
    assert outcome(block, 8) == 22


def test_branch_without_one_side_goes_on_behind():
    assert outcome(bpf.branch(bpf.JEQ, 7, returns(11), ()), 8) == 8
    assert outcome(bpf.branch(bpf.JEQ, 7, (), returns(11)), 7) == 7


def test_a_block_that_ends_in_a_return_but_jumps_past_it_falls_through():
    inner = bpf.branch(bpf.JEQ, 7, returns(11), ())
    block = bpf.branch(bpf.JGE, 5, inner, returns(22))
    assert [outcome(block, length) for length in (4, 7, 8)] == [22, 11, 8]


def test_a_program_longer_than_the_kernel_takes_is_refused():
    assert len(decode(bpf.encode(returns(1, 4095)))) == 4096
    with pytest.raises(bpf.ProgramTooLong, match=r"4097 instructions: the kernel takes 4096"):
        bpf.encode(returns(1, 4096))
