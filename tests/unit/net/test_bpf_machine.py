"""Our machine against the tests' own (``cbpf``), which topology tests hold against the kernel."""

import random

import pytest

from lbfwd.net.bpf import encode
from lbfwd.net.bpf_machine import Unknown, run
from lbfwd.net.fanout import fanout_program
from tests.unit.net.cbpf import Packet, decode, execute
from tests.unit.net.test_fanout import flows


@pytest.mark.parametrize("alive", [(0, 1, 2, 3), (0, 2), (3,), ()])
def test_it_answers_as_the_kernels_would(alive):
    program = fanout_program("hash", range(4), alive)
    raw = decode(encode(program))
    for packet in flows(300):
        assert run(program, packet.data, packet.protocol) == execute(raw, packet)


def test_junk_is_answered_alike():
    program = fanout_program("hash", range(7), (0, 1, 2, 4, 6))
    raw, rng = decode(encode(program)), random.Random(3)
    for flow in flows(300):
        packet = Packet(rng.randbytes(rng.randrange(60)), flow.protocol)
        assert run(program, packet.data, packet.protocol) == execute(raw, packet)


@pytest.mark.parametrize(("mode", "what"), [("cpu", "core"), ("queue", "queue")])
def test_what_only_the_kernel_knows_is_named(mode, what):
    packet = next(flows(1))
    with pytest.raises(Unknown, match=what):
        run(fanout_program(mode, range(2), (0, 1)), packet.data, packet.protocol)
