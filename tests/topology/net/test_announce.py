"""Routes of VIPs in a real kernel; iproute2 is the oracle."""

import os
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import TypeVar

import pytest

from lbfwd.demo.lab import Host, Lab
from lbfwd.net.announce import Enforced, VipRoute, enforce
from tests.topology.node.wires import inside

pytestmark = pytest.mark.topology
T = TypeVar("T")
V4, W4, V6 = (ip_address(text) for text in ("192.0.2.10", "192.0.2.11", "2001:db8::10"))


@pytest.fixture
def host() -> Iterator[Host]:
    if os.geteuid() != 0:
        pytest.skip("needs root: network namespaces")
    with Lab() as lab:
        yield lab.host("node")


def enforced(host: Host, *wanted: VipRoute) -> Enforced:
    call: Callable[[], Enforced] = lambda: enforce(frozenset(wanted))  # noqa: E731
    return inside(host, call)


def shown(host: Host, table: int | str) -> list[str]:
    """The table's routes, as iproute2 shows them, each without the spaces at its end."""
    texts = (
        host.run("ip", family, "route", "show", "table", str(table), check=False)
        for family in ("-4", "-6")
    )
    return [line.strip() for text in texts for line in text.splitlines()]


def test_routes_lead_to_lo_and_no_other_table_has_them(host: Host) -> None:
    before = shown(host, "main")
    done = enforced(host, VipRoute(100, V4), VipRoute(100, V6), VipRoute(7001, W4))
    assert (len(done.added), len(done.removed), done.failed) == (3, 0, {})
    assert shown(host, 100) == [
        "192.0.2.10 dev lo proto 247 scope link",
        "2001:db8::10 dev lo proto 247 metric 1024 pref medium",
    ]
    assert shown(host, 7001) == ["192.0.2.11 dev lo proto 247 scope link"]
    assert shown(host, "main") == before


def test_only_differences_are_written(host: Host) -> None:
    enforced(host, VipRoute(100, V4), VipRoute(100, V6))
    again = enforced(host, VipRoute(100, V4), VipRoute(100, V6))
    assert (again.added, again.removed, again.failed) == (set(), set(), {})
    moved = enforced(host, VipRoute(100, W4), VipRoute(101, V6))
    assert moved.added == {VipRoute(100, W4), VipRoute(101, V6)}
    assert moved.removed == {VipRoute(100, V4), VipRoute(100, V6)}
    assert [line.split()[0] for line in shown(host, 100)] == ["192.0.2.11"]


def test_routes_of_others_are_neither_touched_nor_replaced(host: Host) -> None:
    foreign = (
        ("192.0.2.10", "dev", "lo", "table", "100", "proto", "static"),
        ("2001:db8::10", "dev", "lo", "table", "100", "proto", "static"),
        ("192.0.2.0/24", "dev", "lo", "table", "100", "proto", "247"),
    )
    for route in foreign:
        host.run("ip", "route", "add", *route)
    before = shown(host, 100)
    done = enforced(host, VipRoute(100, V4), VipRoute(100, V6))
    reason = "table 100 has a route to it that is not lbfwd's"
    assert done.failed == {VipRoute(100, V4): reason, VipRoute(100, V6): reason}
    assert not done.added
    enforced(host)
    assert shown(host, 100) == before
