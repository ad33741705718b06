from socket import AF_INET, AF_INET6

import pytest

from lbfwd.backend import routes


def message(family=AF_INET, *, dst=None, length=0, type_=1, flags=0, src_len=0, **attrs):
    """Make an RTM_NEWROUTE message as pyroute2 decodes it."""
    named = [(f"RTA_{name.upper()}", value) for name, value in attrs.items()]
    if dst:
        named.append(("RTA_DST", dst))
    return {
        "family": family, "dst_len": length, "src_len": src_len, "tos": 0, "table": 254, "proto": 3,
        "scope": 0, "type": type_, "flags": flags, "attrs": named,
    }  # fmt: skip


DEFAULT = message(gateway="10.0.0.1", oif=3)


def reply(given, mss=1436):
    (copy,) = routes.for_replies([routes.parse(given)], mss).values()
    return routes.arguments(copy)


def test_the_default_route_gets_the_mss():
    made = reply(DEFAULT)
    assert made["dst"] == "0.0.0.0/0"
    assert made["gateway"] == "10.0.0.1"
    assert made["oif"] == 3
    assert made["metrics"] == {"advmss": 1436}


def test_other_metrics_and_a_smaller_mss_are_kept():
    given = message(
        dst="10.9.0.0", length=16, oif=3, priority=7,
        metrics={"attrs": [("RTAX_MTU", 1400), ("RTAX_ADVMSS", 1000)]},
    )  # fmt: skip
    made = reply(given)
    assert made["metrics"] == {"mtu": 1400, "advmss": 1000}
    assert made["priority"] == 7


def test_a_larger_mss_is_lowered():
    given = message(oif=3, metrics={"attrs": [("RTAX_ADVMSS", 8960)]})
    assert reply(given)["metrics"] == {"advmss": 1436}


def test_every_next_hop_is_copied_without_its_state():
    dead, linkdown, onlink = 1, 16, 4
    hops = [
        {"oif": 3, "hops": 1, "flags": onlink | linkdown, "attrs": [("RTA_GATEWAY", "fd00::1")]},
        {"oif": 4, "hops": 0, "flags": dead, "attrs": [("RTA_GATEWAY", "fd00::2")]},
    ]
    made = reply(message(AF_INET6, multipath=hops, pref=0))
    assert made["multipath"] == [
        {"oif": 3, "hops": 1, "flags": onlink, "gateway": "fd00::1"},
        {"oif": 4, "hops": 0, "flags": 0, "gateway": "fd00::2"},
    ]
    assert made["dst"] == "::/0"


def test_a_gateway_of_the_other_family_is_copied():
    made = reply(message(oif=3, via={"family": AF_INET6, "addr": "fe80::1"}))
    assert made["via"] == {"family": AF_INET6, "addr": "fe80::1"}


@pytest.mark.parametrize(
    "type_", [6, 7, 8, 9], ids=["blackhole", "unreachable", "prohibit", "throw"]
)
def test_a_route_that_refuses_is_copied_bare(type_):
    made = reply(message(dst="10.8.0.0", length=16, type_=type_, oif=1))
    assert made["type"] == type_
    assert "oif" not in made
    assert "metrics" not in made


@pytest.mark.parametrize(
    "given",
    [
        message(dst="10.0.0.12", length=32, type_=2, oif=1),
        message(dst="10.0.0.255", length=32, type_=3, oif=3),
        message(AF_INET6, dst="ff00::", length=8, type_=5, oif=3),
        message(dst="10.0.0.9", length=32, flags=0x200, oif=3),
        message(AF_INET6, dst="fe80::", length=64, oif=3),
        message(AF_INET6, dst="2001:db8::10", length=128, oif=1),
    ],
    ids=["local", "broadcast", "multicast", "cached", "link-local", "on lo"],
)
def test_what_no_reply_needs_stays_behind(given):
    assert not routes.copies(given)


@pytest.mark.parametrize("given", [DEFAULT, message(type_=6, dst="10.0.0.0", length=8)])
def test_what_replies_need_is_copied(given):
    assert routes.copies(given)


@pytest.mark.parametrize(
    "given",
    [
        message(AF_INET6, src_len=64, oif=3, src="fd00::"),
        message(oif=3, encap={"attrs": []}),
        message(multipath=[{"oif": 3, "hops": 0, "flags": 0, "attrs": [("RTA_ENCAP", {})]}]),
        message(dst="10.6.0.0", length=16),
    ],
    ids=["source-specific", "encap", "encap in a hop", "no interface"],
)
def test_what_cannot_be_copied_is_refused_by_name(given):
    with pytest.raises(routes.UnknownRouteError, match=r"/(0|16): "):
        routes.parse(given)


def test_of_two_routes_with_one_key_the_first_is_the_one_in_use():
    first, second = message(gateway="10.0.0.1", oif=3), message(gateway="10.0.0.2", oif=4)
    wanted = routes.for_replies([routes.parse(first), routes.parse(second)], 1436)
    assert [route.hops[0].gateway for route in wanted.values()] == ["10.0.0.1"]
