"""Neighbours that the kernel is asked to keep resolved (drawn in test_resolve.py's picture)."""

import os
from ipaddress import ip_address

import pytest

from lbfwd.net.resolve import Net
from tests.topology.net.resolver import Resolver, bytes_of, ip, neighbours
from tests.topology.net.wire import inside, mac

pytestmark = pytest.mark.topology


def test_neighbours_are_kept_resolved_and_taken_back(two_links):
    node = two_links[0]
    ip(
        node,
        "neighbour",
        "add",
        "10.0.1.2",
        "lladdr",
        mac(two_links[1], "p1"),
        "dev",
        "e1",
        "nud",
        "stale",
    )
    resolver = Resolver(node)
    try:
        resolver.wait("10.0.0.2")
        resolver.resolve("10.0.0.2", "10.0.1.2", "10.0.0.77", "fd00::2")
        managed = {to for to, (_, kept) in neighbours(node).items() if kept}
        assert managed == {"10.0.0.2", "10.0.1.2", "10.0.0.77", "fd00::2"}
        # No longer wanted: one goes, the one that had been there stays, unmanaged.
        resolver.resolve("10.0.0.2")
        left = neighbours(node)
        assert left["10.0.0.2"][1]
        assert not left["10.0.1.2"][1]
        assert left["10.0.1.2"][0] not in ("FAILED", "NONE")
        assert not {"10.0.0.77", "fd00::2"} & set(left)
    finally:
        resolver.close()
    left = neighbours(node)
    assert "10.0.0.2" not in left
    assert not left["10.0.1.2"][1]


def test_what_others_decided_about_neighbours_is_left_alone(two_links):
    node = two_links[0]
    fixed = "02:00:00:00:00:99"
    ip(node, "neighbour", "add", "10.0.0.50", "lladdr", fixed, "dev", "e0", "nud", "permanent")
    ip(node, "neighbour", "add", "10.0.0.51", "lladdr", fixed, "dev", "e0", "extern_learn")
    ip(node, "neighbour", "add", "10.0.0.52", "dev", "e0", "managed")
    before = neighbours(node)
    resolver = Resolver(node)
    try:
        found = resolver.resolve("10.0.0.50", "10.0.0.51", "10.0.0.52")
        assert [[hop.mac for hop in way.hops] for way in found[:2]] == [[bytes_of(fixed)]] * 2
        # Made permanent while we hold it: not ours any more.
        resolver.wait("10.0.0.2")
        ip(
            node,
            "neighbour",
            "replace",
            "10.0.0.2",
            "lladdr",
            fixed,
            "dev",
            "e0",
            "nud",
            "permanent",
        )
        assert resolver.one("10.0.0.2").hops[0].mac == bytes_of(fixed)
    finally:
        resolver.close()
    after = neighbours(node)
    assert after.pop("10.0.0.2") == ("PERMANENT", False)
    assert {to: after[to] for to in ("10.0.0.50", "10.0.0.51")} == {
        to: before[to] for to in ("10.0.0.50", "10.0.0.51")
    }
    assert after["10.0.0.52"][1]


def test_neighbours_are_asked_for_again_after_a_flap(two_links, resolver):
    node = two_links[0]
    resolver.wait("10.0.0.2")
    ip(node, "link", "set", "e0", "down")
    assert resolver.one("10.0.0.2").hops == ()
    ip(node, "link", "set", "e0", "up")
    resolver.wait("10.0.0.2")
    assert neighbours(node)["10.0.0.2"][1]


def test_an_interface_that_goes_away_does_no_harm(two_links, resolver):
    node = two_links[0]
    resolver.wait("10.0.0.2")
    ip(node, "link", "delete", "e0")
    assert resolver.one("10.0.0.2").reason == "no route"


def test_without_the_capability_the_error_names_it(two_links):
    child = os.fork()
    if child == 0:
        with inside(two_links[0]):
            os.setgroups([])
            os.setresuid(65534, 65534, 65534)
            status = 8
            try:
                Net().resolve([ip_address("10.0.0.2")], [])
            except PermissionError as error:
                status = 7 if "CAP_NET_ADMIN" in str(error) else 9
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
