"""Routes read by hand say what pyroute2 reads from the same bytes."""

import socket
from ipaddress import ip_address

import pytest
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from lbfwd.net.resolve import read_route
from lbfwd.net.route_get import read_answer

TO = ip_address("10.9.0.1")
VIA = {"family": socket.AF_INET6, "addr": "2001:db8::1"}


def nexthop(oif, weight, **attributes):
    attrs = [(f"RTA_{name}", value) for name, value in attributes.items()]
    return {"oif": oif, "hops": weight - 1, "flags": 0, "attrs": attrs}


def answer(kind=1, **attributes):
    """The bytes of an RTM_NEWROUTE message, as pyroute2 writes them."""
    made = rtmsg()
    made["header"]["type"] = 24
    made["family"], made["type"], made["dst_len"] = socket.AF_INET, kind, 32
    made["attrs"] = [(f"RTA_{name}", value) for name, value in attributes.items()]
    made.encode()
    return bytes(made.data)


@pytest.mark.parametrize(
    "data",
    [
        answer(DST="10.9.0.1", OIF=70_000, GATEWAY="10.0.0.2", PREFSRC="10.0.0.1"),
        answer(OIF=2, METRICS={"attrs": [("RTAX_MTU", 1400), ("RTAX_ADVMSS", 1300)]}),
        answer(OIF=2, VIA=VIA),
        answer(MULTIPATH=[nexthop(2, 1, GATEWAY="10.0.0.2"), nexthop(3, 256, VIA=VIA)]),
        answer(OIF=2, ENCAP_TYPE=1),
        answer(kind=6),
        answer(),
    ],
    ids=["gateway", "metrics", "via", "multipath", "encap", "blackhole", "nothing"],
)
def test_what_is_read_is_what_pyroute2_reads(data):
    theirs = rtmsg(data)
    theirs.decode()
    assert read_route(read_answer(data), TO) == read_route(theirs, TO)
