"""What is written to pktgen, and which flows come of it.

The oracle for flows walks through addresses and ports as ``mod_cur_headers`` does: each on its own.
"""

from dataclasses import replace
from ipaddress import ip_address
from itertools import cycle, islice

import pytest

from bench.pktgen.plan import Command, Sender, plan, senders
from tests.unit.bench.pktgen.values import MAC, VETH, options


def flows(sender: Sender, packets: int) -> set[tuple[int, int]]:
    addresses = cycle(range(sender.sources.first, sender.sources.last + 1))
    ports = cycle(range(sender.source_ports.first, sender.source_ports.last + 1))
    return set(islice(zip(addresses, ports, strict=False), packets))


def planned(*given: str, vip: str = "192.0.2.10") -> dict[str, list[str]]:
    chosen = options(*given, vip=vip)
    texts: dict[str, list[str]] = {}
    for command in plan(chosen, senders(chosen, VETH)):
        texts.setdefault(command.file, []).append(command.text)
    return texts


@pytest.mark.parametrize(
    ("asked", "sources", "threads"),
    [
        (1, "10.0.0.0/8", 1),
        (10_000, "198.18.0.0/15", 1),
        (1_000, "198.18.0.0-198.18.0.99", 2),
        (1_000_000, "198.18.0.0/15", 3),
        (64_000, "10.0.0.1", 1),
        (1_001, "10.0.0.0/28", 4),
    ],
)
def test_every_thread_walks_through_its_own_flows(asked: int, sources: str, threads: int) -> None:
    cpus = ",".join(map(str, range(threads)))
    chosen = options("--flows", str(asked), "--sources", sources, "--cpus", cpus)
    made = senders(chosen, VETH)
    walked = [flows(sender, 2 * sender.flows) for sender in made]
    assert [len(one) for one in walked] == [sender.flows for sender in made]
    assert len(set().union(*walked)) == sum(sender.flows for sender in made)
    assert asked <= sum(sender.flows for sender in made) <= asked * 1.1 + threads


def test_random_flows_are_all_combinations() -> None:
    chosen = options("--flows", "1000", "--sources", "10.0.0.0-10.0.0.99", "--random")
    (sender,) = senders(chosen, VETH)
    assert (sender.sources.count, sender.source_ports.count, sender.flows) == (100, 10, 1000)


def test_many_flows_over_ipv6_differ_by_port() -> None:
    made = senders(options("--cpus", "0,1", "--flows", "100000", vip="2001:db8::10"), VETH)
    assert [sender.sources.count for sender in made] == [1, 1]
    assert made[0].sources != made[1].sources
    assert [sender.source_ports.count for sender in made] == [50_000, 50_000]


def test_packets_and_rate_are_divided() -> None:
    made = senders(options("--cpus", "0-2", "--packets", "10", "--pps", "3000000"), VETH)
    assert [sender.packets for sender in made] == [4, 3, 3]
    assert {sender.delay_ns for sender in made} == {1000}  # 1,000,000 a second each


def test_a_burst_is_followed_by_its_delay() -> None:
    (sender,) = senders(options("--pps", "1000000", "--burst", "32"), VETH)
    assert sender.delay_ns == 32_000


def test_queues_are_taken_in_turn() -> None:
    made = senders(options("--cpus", "0-4"), replace(VETH, tx_queues=2))
    assert [sender.queue for sender in made] == [0, 1, 0, 1, 0]
    made = senders(options("--cpus", "4,5", "--queues", "3,1"), VETH)
    assert [(sender.cpu, sender.queue) for sender in made] == [(4, 3), (5, 1)]


def test_commands_over_ipv4() -> None:
    # Linux 6.1 took these, and sent 1,012 flows, each twice.
    sources = ("--sources", "198.18.0.0-198.18.0.99", "--flows", "1000")
    texts = planned("--cpus", "0,1", *sources, "--packets", "2024", "--pps", "5000")
    assert texts["kpktgend_1"] == ["add_device eth0@1"]
    assert texts["eth0@1"] == [
        f"dst_mac {MAC}",
        "dst_min 192.0.2.10",
        "src_min 198.18.0.50",
        "src_max 198.18.0.95",
        "udp_src_min 1024",
        "udp_src_max 1035",
        "udp_dst_min 53",
        "udp_dst_max 53",
        "pkt_size 60",
        "queue_map_min 1",
        "queue_map_max 1",
        "delay 400000",
        "count 1012",
        "flag NO_TIMESTAMP",
    ]


def test_the_end_of_random_addresses_is_exclusive() -> None:
    given = ("--sources", "10.0.0.0-10.0.0.3", "--flows", "4", "--random")
    texts = planned(*given)["eth0@0"]
    assert {"src_max 10.0.0.4", "udp_src_max 1025", "flag IPSRC_RND", "flag UDPSRC_RND"} <= {*texts}


def test_commands_over_ipv6() -> None:
    texts = planned("--burst", "8", "--clone", "4", vip="2001:db8::10")["eth0@0"]
    assert {
        "dst6 2001:db8::10",
        "src6 2001:2::",
        "udp_src_max 11024",
        "pkt_size 78",
        "flag UDPCSUM",
        "burst 8",
        "clone_skb 4",
        "count 0",
        "delay 0",
    } <= {*texts}
    assert not [text for text in texts if text.startswith(("src_", "dst_min"))]


def test_a_low_ipv6_address_stays_one() -> None:
    assert (
        "src6 ::1:2" in planned("--sources", "::1:2", "--flows", "1", vip="2001:db8::1")["eth0@0"]
    )
    assert str(ip_address(0x10002)) == "0.1.0.2"  # what a number alone would mean


def test_all_devices_are_added_before_any_is_set_up() -> None:
    chosen = options("--cpus", "0,1")
    commands = plan(chosen, senders(chosen, VETH))
    assert commands[:2] == (
        Command("kpktgend_0", "add_device eth0@0"),
        Command("kpktgend_1", "add_device eth0@1"),
    )


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("--cpus 0,0", "--cpus 0,0: each core once"),
        ("--cpus 0,1 --queues 1", "--queues 1: one for each of the 2 threads"),
        ("--queues 4", "--queues 4: eth0 has 4, the first is 0"),
        ("--size 1519", "--size 1519: at most 1518: the MTU of eth0 is 1500"),
        ("--cpus 0-2 --packets 2", "--packets: 2, but at least one for each of the 3 threads"),
        ("--cpus 0-2 --flows 2", "--flows: 2, but"),
        ("--cpus 0,1 --sources 10.0.0.1", "--sources: 1, but"),
        ("--flows 11 --sources 10.0.0.1 --source-ports 1-10", "--flows 11: a thread has 1 source"),
        ("--pps 9999999999", "--pps 9999999999: 0 ns between two bursts"),
        ("--cpus 0-2 --pps 1", "--pps 1: 3000000000 ns between two bursts"),
    ],
)
def test_rules(given: str, told: str) -> None:
    with pytest.raises(ValueError, match="^" + told):
        senders(options(*given.split()), VETH)


def test_all_broken_rules_are_told() -> None:
    with pytest.raises(ValueError, match=r"(?s)--cpus 0,0.*--size 2000.*no carrier"):
        senders(options("--cpus", "0,0", "--size", "2000"), replace(VETH, carrier=False))


def test_ipv6_flows_are_limited() -> None:
    with pytest.raises(ValueError, match=r"only the port of an IPv6 source.* 64511 ports"):
        senders(options("--flows", "65000", vip="2001:db8::10"), VETH)
