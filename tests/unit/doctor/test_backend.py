"""Each check of a backend: silent about the good one, and right about what is wrong."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import ip_address

import pytest

from lbfwd.backend.plan import Underlay
from lbfwd.doctor import backend
from lbfwd.doctor.backend_facts import Filter, parse_address, parse_filter
from lbfwd.doctor.facts import BackendFacts, Device, Host, Offloads
from lbfwd.doctor.finding import Finding
from lbfwd.doctor.run import BACKEND, examine_backend

VIP4, VIP6 = ip_address("192.0.2.10"), ip_address("2001:db8::10")
NODE4, NODE6 = ip_address("203.0.113.10"), ip_address("2001:db8:1::10")
GRE = Device("lbfwd-gre4", "gre", up=True, mtu=1456)
GRE6 = Device("lbfwd-gre6", "ip6gre", up=True, mtu=1456)
TUN = Device("lbfwd-tun", "tun", up=True, mtu=1456)
GOOD = BackendFacts(
    host=Host("6.18", synchronized=True, clocksource="tsc"),
    vips=(VIP4, VIP6),
    nodes=(NODE4, NODE6),
    devices=(GRE, GRE6),
    addresses={VIP4: "lo", VIP6: "lo"},
    rp_filter={"all": 0, "default": 1, "eth0": 1, "lbfwd-gre4": 0, "lbfwd-gre6": 0},
    arp_ignore={"eth0": 1},
    arp_announce={"eth0": 2},
    filtered=True,
    underlays={NODE4: Underlay(1500), NODE6: Underlay(1500)},
    ruled=frozenset({VIP4, VIP6}),
    listening=frozenset({ip_address("::")}),
    offloads={"eth0": Offloads(gro=True)},
)


def said(check: Callable[[BackendFacts], Iterator[Finding]], **facts: object) -> list[Finding]:
    found = list(check(replace(GOOD, **facts)))  # type: ignore[arg-type]
    assert all(bool(f.why) == bool(f.fix) == (f.level != "ok") for f in found)
    return [finding for finding in found if finding.level != "ok"]


@pytest.mark.parametrize("check", BACKEND, ids=lambda check: check.__name__)
@pytest.mark.parametrize("devices", [(GRE, GRE6), (TUN,)], ids=["gre", "tun"])
def test_the_good_backend(check, devices) -> None:  # type: ignore[no-untyped-def]
    facts = replace(GOOD, devices=devices, rp_filter={"all": 0, "lbfwd-tun": 0})
    levels = [finding.level for finding in check(facts)]
    user_space = check is backend.tunnel and devices == (TUN,)
    assert set(levels) <= ({"ok", "warn"} if user_space else {"ok"})
    assert levels or devices == (GRE, GRE6)


def test_everything_at_once() -> None:
    assert {finding.level for finding in examine_backend(GOOD)} == {"ok"}


def test_tunnel() -> None:
    (finding,) = said(backend.tunnel, devices=(GRE,))
    assert (finding.level, finding.what) == ("broken", "no device unwraps GRE from IPv6 nodes")
    assert finding.fix == (f"lbfwd backend --vip {VIP4} --vip {VIP6} --node {NODE4} --node {NODE6}")
    (finding,) = said(backend.tunnel, devices=(replace(GRE, up=False), GRE6))
    assert (finding.level, finding.fix) == ("broken", "ip link set lbfwd-gre4 up")
    found = said(backend.tunnel, devices=(TUN,))
    assert {(f.level, f.what) for f in found} == {
        ("warn", "lbfwd-tun: this kernel has no GRE device")
    }


def test_vips() -> None:
    (finding,) = said(backend.vips, addresses={VIP6: "lo"})
    assert (finding.level, finding.fix) == ("broken", f"ip address add {VIP4}/32 dev lo")
    (finding,) = said(backend.vips, addresses={VIP4: "lo", VIP6: "eth0"})
    assert (finding.level, finding.what) == ("broken", f"{VIP6} is on eth0")
    assert finding.fix.endswith(f"ip address add {VIP6}/128 dev lo")


def test_arp() -> None:
    (finding,) = said(backend.arp, arp_ignore={"eth0": 0, "eth1": 1})
    assert (finding.level, finding.what) == ("broken", "arp_ignore is below 1 on eth0")
    (finding,) = said(backend.arp, arp_announce={"eth0": 1})
    assert finding.fix == "sysctl -w net.ipv4.conf.all.arp_announce=2"
    assert not list(backend.arp(replace(GOOD, vips=(VIP6,), arp_ignore={"eth0": 0})))


@pytest.mark.parametrize(("general", "own", "bad"), [(0, 0, 0), (1, 0, 1), (0, 2, 1), (2, 0, 1)])
def test_reverse_path(general: int, own: int, bad: int) -> None:
    values = {"all": general, "eth0": 0, "lbfwd-gre4": own, "lbfwd-gre6": 0}
    found = said(backend.reverse_path, rp_filter=values, devices=(GRE,))
    assert len(found) == bad
    for finding in found:
        assert finding.level == "broken"
        assert finding.fix.endswith(
            "net.ipv4.conf.lbfwd-gre4.rp_filter=0 net.ipv4.conf.all.rp_filter=0"
        )
        # The other devices keep what "all" gave them.
        assert (f"net.ipv4.conf.eth0.rp_filter={general}" in finding.fix) == (general > 0)


def test_filtering() -> None:
    (finding,) = said(backend.filtering, filtered=False)
    assert finding.what == "no nftables table inet lbfwd_backend"
    (finding,) = said(backend.filtering, strangers=3)
    assert finding.what == "3 GRE packets of strangers were dropped"


def test_nodes() -> None:
    gone = {NODE4: Underlay(problem="no route to this node"), NODE6: Underlay(1500)}
    (finding,) = said(backend.nodes, underlays=gone)
    assert finding.what == f"{NODE4}: no route to this node"
    narrow = {NODE4: Underlay(1400), NODE6: Underlay(1500)}
    (finding,) = said(backend.nodes, underlays=narrow)
    assert finding.fix == "ip link set lbfwd-gre4 mtu 1376"


def test_mss() -> None:
    (finding,) = said(backend.mss, ruled=frozenset({VIP4}))
    assert finding.what == f"no route of their own for replies from {VIP6}"


@pytest.mark.parametrize(
    ("listening", "deaf"),
    [
        ({"::"}, []),
        ({"0.0.0.0"}, [VIP6]),
        ({str(VIP4), str(VIP6)}, []),
        ({"127.0.0.1"}, [VIP4, VIP6]),
    ],
)
def test_servers(listening: set[str], deaf: list[object]) -> None:
    found = said(backend.servers, listening=frozenset(map(ip_address, listening)))
    assert [f.what for f in found] == [
        f"nothing listens on {vip}, nor on every address" for vip in deaf
    ]


def test_losses() -> None:
    assert not said(backend.losses, raw_drops=5)  # the kernel unwraps
    (finding,) = said(backend.losses, raw_drops=5, devices=(TUN,))
    assert finding.what == "5 GRE packets found no room at the raw socket"
    merging = {"eth0": Offloads(udp_gro_forwarding=True)}
    (finding,) = said(backend.losses, offloads=merging, devices=(TUN,))
    assert finding.fix == "ethtool -K eth0 rx-udp-gro-forwarding off"


def test_addresses_of_proc_net() -> None:
    # proc(5): the words of 127.0.0.1 and of 2001:db8::10 on a little-endian machine
    assert parse_address("0100007F") == ip_address("127.0.0.1")
    assert parse_address("B80D0120000000000000000010000000") == VIP6


def test_what_the_kit_has_filtered() -> None:
    counter = {"counter": {"packets": 9, "bytes": 1}}
    listing = [
        {"metainfo": {}},
        {"table": {"name": "lbfwd_backend"}},
        {"set": {"name": "vip4", "elem": [str(VIP4)]}},
        {"set": {"name": "vip6"}},
        {"set": {"name": "node4", "elem": [str(NODE4)]}},
        {"set": {"name": "node6", "elem": [str(NODE6)]}},
        {"rule": {"comment": "GRE from a node", "expr": [counter]}},
        {"rule": {"comment": "GRE from a stranger", "expr": [counter, {"drop": None}]}},
    ]
    assert parse_filter(listing) == Filter((VIP4,), (NODE4, NODE6), 9)
