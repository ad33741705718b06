import errno
from ipaddress import ip_address

import pytest
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import nh, rtmsg

from lbfwd.net.links import Link
from lbfwd.net.neighbours import Neighbour, Neighbours
from lbfwd.net.resolve import NextHop, Route, View, read_route, resolution

TO = ip_address("10.9.0.1")
GATEWAY = ip_address("10.0.0.2")
E0 = Link("e0", 2, b"\2\0\0\0\0\1", 1500, up=True, carrier=True, ethernet=True)
STALE = Neighbour("STALE", b"\2\0\0\0\0\2", managed=True, foreign=False)


def message(kind=1, cls=rtmsg, **attributes):
    made = cls()
    made["type"] = kind
    made["attrs"] = [(f"RTA_{name}", value) for name, value in attributes.items()]
    return made


def hop(oif, **attributes):
    made = message(cls=nh, **attributes)
    made["oif"] = oif
    return made


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (2, "route is local: this machine's own address"),
        (6, "route is blackhole"),
        (8, "route is prohibit"),
        (9, "route is 9"),
    ],
)
def test_routes_that_lead_nowhere(kind, reason):
    assert read_route(message(kind, OIF=2), TO) == Route(reason=reason)


def test_a_route_that_encapsulates_is_refused():
    reason = "route encapsulates (ip route … encap): not supported"
    assert read_route(message(OIF=2, ENCAP_TYPE=1), TO).reason == reason
    paths = [hop(2, GATEWAY="10.0.0.2"), hop(3, GATEWAY="10.0.1.2", ENCAP_TYPE=1)]
    assert read_route(message(MULTIPATH=paths), TO).reason == reason


def test_hops_are_read_in_order():
    via = {"family": 10, "addr": "fe80::1"}
    paths = [hop(2, GATEWAY="10.0.0.2"), hop(3, VIA=via), hop(4)]
    assert read_route(message(MULTIPATH=paths), TO).hops == (
        (2, GATEWAY),
        (3, ip_address("fe80::1")),
        (4, TO),
    )


def test_hops_have_their_weights():
    paths = [hop(2, GATEWAY="10.0.0.2"), hop(3, GATEWAY="10.0.1.2")]
    paths[1]["hops"] = 4  # the weight less one
    assert read_route(message(MULTIPATH=paths), TO).weights == (1, 5)
    assert read_route(message(OIF=2), TO).weights == (1,)


def test_a_route_without_an_output_is_no_way():
    route = read_route(message(), TO)
    assert resolution(route, 4, None, View({}, {}, {})).reason == (
        "route without an output interface"
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"links": {}}, "next hop 10.0.0.2: its interface is gone"),
        ({"neighbours": {}}, "next hop 10.0.0.2 on e0: neighbour NONE"),
        ({"addresses": {(2, 6): TO}}, "e0 has no global IPv4 address: set [node] source"),
    ],
)
def test_what_is_missing_is_named(changes, reason):
    whole = {"links": {2: E0}, "addresses": {(2, 4): TO}, "neighbours": {(2, GATEWAY): STALE}}
    route = Route(hops=((2, GATEWAY),), weights=(1,), mtu=1400)
    assert resolution(route, 4, None, View(**whole)).hops == (
        NextHop(E0, STALE.mac, TO, 1400, GATEWAY),
    )
    found = resolution(route, 4, None, View(**whole | changes))
    assert (found.hops, found.reason) == ((), reason)


@pytest.mark.parametrize(
    ("version", "route", "path", "mtu"),
    [
        (4, 0, 0, 1500),
        (4, 0, 1400, 1400),  # learned
        (4, 1400, 1400, 1400),  # the route's
        (4, 1400, 1300, 1300),
        (4, 0, 9000, 1500),  # no more than the link
        (4, 0, 552, 576),  # not believed
        (4, 552, 552, 552),  # set by the operator
        (4, 400, 300, 400),
        (6, 0, 1200, 1280),
        (6, 0, 1279, 1280),
    ],
)
def test_the_mtu_is_the_least_of_link_route_and_what_was_learned(version, route, path, mtu):
    view = View({2: E0}, {(2, version): TO}, {(2, GATEWAY): STALE})
    found = resolution(Route(((2, GATEWAY),), (1,), route, path), version, None, view)
    assert [hop.mtu for hop in found.hops] == [mtu]


class OldKernel:
    """Neighbours of a kernel before 5.16: NDA_FLAGS_EXT is ignored, NTF_USE resolves."""

    def __init__(self, refuse=0):
        self.refuse = refuse
        self.entries = {}
        self.asked = []

    def get_neighbours(self):
        for dst, state in self.entries.items():
            entry = ndmsg()
            entry["ifindex"], entry["state"], entry["flags"] = 2, state, 0
            entry["attrs"] = [("NDA_DST", dst), ("NDA_LLADDR", "02:00:00:00:00:02")]
            yield entry

    def neigh(self, command, dst, **fields):
        self.asked.append((command, dst))
        if command == "del":
            del self.entries[dst]
            return
        assert fields["flags"] == 1
        if self.refuse:
            raise NetlinkError(self.refuse)
        if command == "add" and dst in self.entries:
            raise NetlinkError(errno.EEXIST)
        self.entries.setdefault(dst, 0x02)


def test_an_older_kernel_is_asked_each_time_and_given_back_what_was_made():
    kernel = OldKernel()
    kernel.entries["10.0.0.3"] = 0x04
    neighbours = Neighbours(kernel)
    keys = {(2, GATEWAY), (2, ip_address("10.0.0.3"))}
    for _ in range(2):
        table = neighbours.keep(keys)
        assert {table[key].state for key in keys} == {"REACHABLE", "STALE"}
    assert kernel.asked.count(("change", "10.0.0.2")) == 1
    assert kernel.asked.count(("change", "10.0.0.3")) == 2
    neighbours.close()
    assert list(kernel.entries) == ["10.0.0.3"]


def test_a_neighbour_that_the_kernel_refuses_says_why():
    neighbours = Neighbours(OldKernel(refuse=errno.ENOBUFS))
    entry = neighbours.keep({(2, GATEWAY)})[(2, GATEWAY)]
    assert (entry.state, entry.mac) == ("No buffer space available", b"")
    neighbours.close()
