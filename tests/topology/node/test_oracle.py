"""1,000 random flows through the running binary: each frame is the one that the oracles build."""

import random
import struct
from ipaddress import ip_address
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from lbfwd.forwarding import Forwarding, Member, PathSpec, PoolState, ServiceState
from tests.oracle import encap
from tests.oracle.choice import Chooser
from tests.topology.node.stage import FARM4, FARM6, HASH_KEY, VIP4, VIP6, Stage, running
from tests.topology.node.wires import frames

pytestmark = pytest.mark.topology

FLOWS = 1000


def expected_state(stage: Stage) -> Forwarding:
    """What the configuration of the stage means, written down by hand."""
    node, farm = (bytes.fromhex(stage.mac(*at).replace(":", "")) for at in
                  ((stage.node, "n1"), (stage.farm, "f0")))  # fmt: skip

    def pool(name: str, source: str, addresses: list[str]) -> PoolState:
        members = [
            Member(
                a,
                ip_address(a),
                1,
                (PathSpec(node, farm, ip_address(source), ip_address(a), 0, 1500),),
            )
            for a in addresses
        ]
        return PoolState(name, 251, tuple(members))

    def service(name: str, vip: str, protocol: str, pool: str) -> ServiceState:
        return ServiceState(name, ip_address(vip), protocol, 0, "5-tuple", pool)

    return Forwarding(
        bytes.fromhex(HASH_KEY),
        (
            service("4in4", VIP4, "tcp", "four"),
            service("4in6", VIP4, "udp", "six"),
            service("6in4", VIP6, "tcp", "four"),
            service("6in6", VIP6, "udp", "six"),
        ),
        (pool("four", "10.0.0.1", FARM4), pool("six", "fd00::1", FARM6)),
    )


def random_frame(dice: random.Random, src_mac: str, dst_mac: str) -> bytes:
    tos = dice.randrange(256)
    if dice.random() < 0.5:
        source = str(ip_address(dice.randrange(0x0B000000, 0xDF000000)))
        ip = IP(src=source, dst=VIP4, tos=tos, ttl=dice.randrange(1, 256), id=dice.randrange(65536))
    else:
        source = str(ip_address(0x2001_0DB8 << 96 | dice.getrandbits(96)))
        ip = IPv6(src=source, dst=VIP6, tc=tos, fl=dice.getrandbits(20))
    ports = {"sport": dice.randrange(1, 65536), "dport": dice.randrange(1, 65536)}
    transport = TCP(**ports, flags="A") if dice.random() < 0.5 else UDP(**ports)
    payload = Raw(dice.randbytes(dice.randrange(1300)))
    return bytes(Ether(src=src_mac, dst=dst_mac) / ip / transport / payload)


def test_random_flows_leave_as_the_oracles_say(tmp_path: Path) -> None:
    dice = random.Random(20261124)
    with running(tmp_path) as (stage, node):
        chooser = Chooser(expected_state(stage))
        macs = stage.mac(stage.client, "c0"), stage.mac(stage.node, "n0")
        sent = [random_frame(dice, *macs) for _ in range(FLOWS)]
        source, sink = stage.tap(stage.client, "c0"), stage.tap(stage.farm, "f0")
        want = []
        for frame in sent:
            _service, member, path = chooser.choose(frame)
            inner = encap.inner_packet(frame)
            want.append(
                encap.wrapped(inner, path.source, member.address, path.src_mac, path.dst_mac)
            )
            source.send(frame)
        got = [frame for frame in frames(sink) if is_gre(frame)]
        assert sorted(got) == sorted(want)
        status = node.status()
        assert sum(service["packets"] for service in status["services"]) == FLOWS
        assert sum(status["drops"].values()) == 0
        by_backend = {backend["name"]: backend["packets"] for pool in status["pools"]
                      for backend in pool["backends"]}  # fmt: skip
        assert by_backend == count_by_destination(got)
        assert all(worker["frames"] > FLOWS / 4 for worker in status["workers"])


def is_gre(frame: bytes) -> bool:
    ethertype = struct.unpack_from("!H", frame, 12)[0]
    return (ethertype == 0x0800 and frame[23] == 47) or (ethertype == 0x86DD and frame[20] == 47)


def count_by_destination(got: list[bytes]) -> dict[str, int]:
    counts = dict.fromkeys([*FARM4, *FARM6], 0)
    for frame in got:
        raw = frame[30:34] if frame[12:14] == b"\x08\x00" else frame[38:54]
        counts[str(ip_address(raw))] += 1
    return counts
