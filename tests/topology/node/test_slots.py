"""Which worker gets a packet: by flow over rings of both kinds, by receive queue, by CPU.

The status tells how many packets came to each worker's ring; the sink, that all were forwarded.
"""

import os
import signal
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from lbfwd.demo.lab import Lab
from lbfwd.net.bpf import encode
from lbfwd.net.fanout import fanout_program
from tests.topology.net.test_packet_programs import multiqueue_tap
from tests.topology.node.stage import CONFIG, VIP4, VIP6, Node, Stage, running
from tests.topology.node.test_oracle import is_gre
from tests.topology.node.wires import frames, tap
from tests.unit.net.cbpf import Packet, run

pytestmark = [
    pytest.mark.topology,
    pytest.mark.skipif(not {0, 1} <= os.sched_getaffinity(0), reason="needs CPUs 0 and 1"),
]

WORKERS = 2
FLOWS = 300
QUEUES = 4
MIXED = CONFIG.replace("[[pool]]", '[[worker]]\ncpu = 1\nring = "v2"\n[[pool]]', 1)


def packets(dst_mac: str) -> list[bytes]:
    """One packet each of many flows, over IPv4 and IPv6."""
    ether = Ether(src="02:00:00:00:00:01", dst=dst_mac)
    inner = [
        network / UDP(sport=port, dport=9) / Raw(bytes(40))
        for port in range(1000, 1000 + FLOWS)
        for network in (IP(src="198.51.100.2", dst=VIP4), IPv6(src="2001:db8:c::2", dst=VIP6))
    ]
    return [bytes(ether / packet) for packet in inner]


def received(node: Node) -> list[int]:
    """Packets that came to each worker's rings."""
    return [sum(ring["packets"] for ring in w["rings"]) for w in node.status()["workers"]]


def expected_slots(sent: Sequence[bytes]) -> list[int]:
    """Count by slot, as another machine runs the program."""
    program = encode(fanout_program("hash", range(WORKERS), range(WORKERS)))
    slots = [run(program, Packet(f[14:], int.from_bytes(f[12:14], "big"))) for f in sent]
    return [slots.count(slot) for slot in range(WORKERS)]


def restarted(node: Node, slot: int) -> None:
    node.until(
        lambda s: s["workers"][slot]["restarts"] == 1 and s["workers"][slot]["state"] == "running",
        "the worker is replaced",
    )


@pytest.mark.slow
def test_rings_of_both_kinds_share_one_fanout_group(tmp_path: Path) -> None:
    with running(tmp_path, MIXED) as (stage, node):
        settings = [worker["settings"] for worker in node.status()["workers"]]
        assert [own["ring"] for own in settings] == ["v3", "v2"]
        source, sink = stage.tap(stage.client, "c0"), stage.tap(stage.farm, "f0")
        sent = packets(stage.mac(stage.node, "n0"))
        want = expected_slots(sent)
        for times in (1, 2):
            for frame in sent:
                source.send(frame)
            assert len([frame for frame in frames(sink) if is_gre(frame)]) == len(sent)
            assert received(node) == [times * count for count in want]
            if times == 1:  # a successor goes on with a ring of the same kind
                os.kill(node.status()["workers"][1]["pid"], signal.SIGKILL)
                restarted(node, 1)
        assert sum(node.status()["drops"].values()) == 0


@pytest.mark.skipif(not os.path.exists("/dev/net/tun"), reason="needs /dev/net/tun")
def test_each_worker_gets_the_packets_of_its_receive_queues(tmp_path: Path) -> None:
    """The node receives on a TAP: what is written to its n-th descriptor comes by queue n."""
    config = CONFIG.replace('"n0"', '"t0"').replace("[0, 1]", '[0, 1]\nfanout = "queue"')
    with Lab() as lab, ExitStack() as stack:
        stage = Stage(lab)
        queues = multiqueue_tap(stack, stage.node, "t0", QUEUES)
        node = Node(stage.node, tmp_path, config).ready()
        sink = stack.enter_context(tap(stage.farm, "f0"))
        sent = packets(stage.mac(stage.node, "t0"))
        total = [0] * WORKERS
        for queue, fd in enumerate(queues):
            for frame in sent:
                os.write(fd, frame)
            total[queue % WORKERS] += len(sent)
            assert len([frame for frame in frames(sink) if is_gre(frame)]) == len(sent)
            assert received(node) == total


@pytest.mark.slow
def test_each_worker_gets_the_packets_that_its_cpu_receives(tmp_path: Path) -> None:
    """veth receives on the CPU that sends, where packets are not steered to another (RPS)."""
    config = CONFIG.replace("[0, 1]", '[1, 0]\nfanout = "cpu"')
    before = os.sched_getaffinity(0)
    with running(tmp_path, config) as (stage, node):
        source, sink = stage.tap(stage.client, "c0"), stage.tap(stage.farm, "f0")
        sent = packets(stage.mac(stage.node, "n0"))
        total = [0] * WORKERS
        for slot, cpu in ((1, 0), (0, 1)):
            os.sched_setaffinity(0, {cpu})
            try:
                for frame in sent:
                    source.send(frame)
            finally:
                os.sched_setaffinity(0, before)
            total[slot] += len(sent)
            assert len([frame for frame in frames(sink) if is_gre(frame)]) == len(sent)
            assert received(node) == total
