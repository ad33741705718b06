"""Backends that register at two nodes: over IPv6, and with a node that has died.

client ── router ─┬─ lb1, lb2        (tests/topology/fleet/registration_pair.py)
                  └─ a (IPv4), c (IPv6)
"""

import re
import time
from pathlib import Path

import pytest

from lbfwd.demo.lab import eventually
from lbfwd.demo.topology import VIPS
from tests.topology.fleet.registration_pair import ADDRESSES, Pair, registration_pair
from tests.topology.fleet.registration_site import (
    HOLD_S,
    LEASE_S,
    START_S,
    backend_at,
    download,
    kill,
    names,
    until,
)

pytestmark = [pytest.mark.topology, pytest.mark.slow]
MARGIN_S = 4.0


def who_serves(pair: Pair) -> set[str]:
    """Which backends answer new connections to both VIPs, by whichever node they come."""
    client = pair.network.client
    return names(client, VIPS[4], 16) | names(client, f"[{VIPS[6]}]", 16)


def at_both(pair: Pair, name: str, condition: str, longest_s: float = START_S) -> None:
    for node in pair.nodes.values():
        until(node, name, condition, longest_s)


def test_a_backend_with_an_ipv6_address_at_two_nodes(tmp_path: Path) -> None:
    with registration_pair(tmp_path, "https") as pair:
        pair.join("a")
        c = pair.join("c")
        at_both(pair, "a", "up")
        at_both(pair, "c", "up")
        for node in pair.nodes.values():
            assert backend_at(node, "c")["address"] == "2001:db8:f3::2"
        eventually(lambda: who_serves(pair) == {"a", "c"}, START_S, "both serve")
        it_drains_at_both(pair)
        kill(c)
        at_both(pair, "c", "", LEASE_S + HOLD_S + MARGIN_S)
        assert who_serves(pair) == {"a"}


def it_drains_at_both(pair: Pair) -> None:
    client, c = pair.network.client, pair.backends["c"]
    running = [download(client, pair.backends, pair.directory, f"f{n}") for n in range(12)]
    for node in pair.nodes.values():
        eventually(lambda n=node: backend_at(n, "c")["flows"] > 0, START_S, "flows at both")
    done = c.tell("pause")
    assert done.returncode == 0, done.stderr
    at_both(pair, "c", "paused")
    assert who_serves(pair) == {"a"}
    assert all(one.is_whole() for one in running)
    assert c.tell("resume").returncode == 0
    at_both(pair, "c", "up")


@pytest.mark.parametrize(("way", "bound_s"), [("https", 5.0), ("etcd", 15.0)])
def test_a_node_that_has_died_is_named_and_not_waited_for(
    tmp_path: Path, way: str, bound_s: float
) -> None:
    """The bounds are those of docs/registration.md."""
    with registration_pair(tmp_path, way) as pair:
        a = pair.join("a")
        at_both(pair, "a", "up")
        status = pair.backends["a"]
        heard = lambda: status.tell("status").stdout.count(": active") == 3  # noqa: E731
        eventually(heard, START_S, "it and both nodes say so")
        kill(pair.nodes["lb2"].process)
        begun = time.monotonic()
        done = pair.backends["a"].tell("leave", "--drain", "55")
        took_s = time.monotonic() - begun
        assert done.returncode == 0, done.stderr
        found = re.fullmatch(r"left: no live flow; not to be asked: (.*)\n", done.stdout)
        assert found, done.stdout
        assert found[1] == {"https": f"https://[{ADDRESSES['lb2'][6]}]:9443", "etcd": "lb2"}[way]
        assert took_s < bound_s + MARGIN_S
        assert a.wait(START_S) == 0
        until(pair.nodes["lb1"], "a", "")
