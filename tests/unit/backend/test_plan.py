"""Figures here are worked out by hand from RFC 2784, 791, 8200 and 9293, not by the plan."""

from ipaddress import ip_address

import pytest

from lbfwd.backend.plan import Address, Machine, Underlay, advertised_mss, make_plan
from lbfwd.backend.request import BackendError, parse


def machine(addresses=(), mtus=None, tables=(), **facts):
    mtus = mtus or {"10.0.0.1": 1500}
    return Machine(
        addresses=tuple(Address(ip_address(a), device) for a, device in addresses),
        underlays={ip_address(node): Underlay(mtu=mtu) for node, mtu in mtus.items()},
        tables=set(tables),
        **facts,
    )


@pytest.mark.parametrize(
    ("mtus", "tunnel", "mss4", "mss6"),
    [
        ({"10.0.0.1": 1500}, 1476, 1436, 1416),
        ({"fd00::1": 1500}, 1456, 1416, 1396),
        ({"10.0.0.1": 1500, "fd00::1": 1500}, 1456, 1416, 1396),
        ({"10.0.0.1": 1400, "fd00::1": 9000}, 1376, 1336, 1316),
        ({"10.0.0.1": 9000, "10.0.0.2": 1500}, 1476, 1436, 1416),
    ],
)
def test_the_tunnel_fits_the_narrowest_way(mtus, tunnel, mss4, mss6):
    plan = make_plan(parse(["192.0.2.1"], list(mtus)), machine(mtus=mtus))
    assert plan.tunnel_mtu == tunnel
    assert advertised_mss(tunnel, 4) == mss4
    assert advertised_mss(tunnel, 6) == mss6


def test_a_given_mtu_stands_for_the_whole_way():
    plan = make_plan(parse(["192.0.2.1"], ["10.0.0.1"], 1500), machine(mtus={"10.0.0.1": 9000}))
    assert plan.tunnel_mtu == 1476


def test_a_vip_that_is_on_lo_already_is_not_added():
    there = machine([("192.0.2.1", "lo")])
    plan = make_plan(parse(["192.0.2.1", "192.0.2.2"], ["10.0.0.1"]), there)
    assert [str(vip) for vip in plan.add_vips] == ["192.0.2.2"]


def test_a_routing_table_in_use_is_passed_over():
    plan = make_plan(parse(["192.0.2.1"], ["10.0.0.1"]), machine(tables={254, 255, 7600, 7601}))
    assert plan.table == 7602


@pytest.mark.parametrize(
    ("vip", "state", "said"),
    [
        (
            "192.0.2.1",
            machine([("192.0.2.1", "eth0")]),
            "--vip 192.0.2.1: is already an address of eth0; a VIP belongs on lo alone",
        ),
        (
            "192.0.2.1",
            machine([("10.0.0.1", "eth0")]),
            "--node 10.0.0.1: is an address of this machine (eth0)",
        ),
        ("192.0.2.1", machine(loopback_up=False), "lo is down"),
        ("2001:db8::1", machine(ipv6=False), "IPv6 is disabled on lo"),
        ("2001:db8::1", machine(mtus={"10.0.0.1": 1300}), "tunnel MTU 1276: IPv6 VIPs need 1280"),
        ("192.0.2.1", machine(tables=range(7600, 7700)), "7600 to 7699 are all in use"),
    ],
)
def test_what_this_machine_cannot_be_is_said(vip, state, said):
    with pytest.raises(BackendError) as refused:
        make_plan(parse([vip], ["10.0.0.1"]), state)
    assert said in str(refused.value)


def test_a_node_without_a_route_is_refused_with_the_reason():
    node = ip_address("10.0.0.1")
    state = Machine((), {node: Underlay(problem="no route to this node: No route to host")}, ())
    with pytest.raises(BackendError, match="no route to this node: No route to host"):
        make_plan(parse(["192.0.2.1"], ["10.0.0.1"]), state)


def test_an_ipv4_vip_needs_no_ipv6():
    plan = make_plan(
        parse(["192.0.2.1"], ["10.0.0.1"]), machine(mtus={"10.0.0.1": 1300}, ipv6=False)
    )
    assert plan.tunnel_mtu == 1276
