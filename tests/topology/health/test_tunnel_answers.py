"""What rp_filter.py says of a node, against what the kernel does with real answers."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from structlog.testing import capture_logs

from lbfwd.demo.lab import Host, eventually
from lbfwd.demo.topology import VIPS, Network
from lbfwd.health import tunnel_answers
from lbfwd.health.rp_filter import Finding
from lbfwd.health.tunnel_device import answers_blocked
from tests.topology.health.tunnel_site import START_S, VIP, Asker

pytestmark = pytest.mark.topology

WAYS_BACK = {
    "by the same interface": ([], []),
    "by another": ([f"add {VIPS[4]} dev x0"], [f"del {VIPS[4]}"]),
    "blackhole": ([f"add blackhole {VIPS[4]}"], [f"del blackhole {VIPS[4]}"]),
    "none": (
        ["add 10.0.0.0/8 via 10.0.0.1", "del default"],
        ["add default via 10.0.0.1", "del 10.0.0.0/8"],
    ),
}


@contextmanager
def way_back(host: Host, name: str) -> Iterator[None]:
    """Change the node's route to the VIP for a while."""
    there, back = WAYS_BACK[name]
    host.run(*["ip", "link", "add", "x0", "type", "veth", "peer", "name", "x1"])
    host.run(*["ip", "link", "set", "x0", "up"])
    host.run(*["ip", "link", "set", "x1", "up"])
    for command in there:
        host.run("ip", "route", *command.split())
    try:
        yield
    finally:
        for command in back:
            host.run("ip", "route", *command.split(), check=False)
        host.run("ip", "link", "del", "x0")


def rp_filter(host: Host, general: int, own: int) -> None:
    host.sysctl(ipv4__conf__all__rp_filter=general, ipv4__conf__eth0__rp_filter=own)


def findings(asker: Asker) -> tuple[Finding, ...]:
    return asker.do(asyncio.to_thread(answers_blocked, [*VIP.values()], ["eth0"]))


@pytest.mark.parametrize("way", WAYS_BACK)
@pytest.mark.parametrize(
    ("general", "own"),
    [
        (1, 0),
        (0, 2),
        pytest.param(0, 0, marks=pytest.mark.slow),
        pytest.param(0, 1, marks=pytest.mark.slow),
        pytest.param(1, 2, marks=pytest.mark.slow),
        pytest.param(2, 0, marks=pytest.mark.slow),
    ],
)
def test_a_finding_is_there_exactly_when_answers_are_dropped_and_its_fix_helps(
    asker: Asker, network: Network, way: str, general: int, own: int
) -> None:
    node = network.node
    try:
        with way_back(node, way):
            rp_filter(node, general, own)
            found = findings(asker)
            assert len(found) == int(asker.is_silent(4, "a"))
            for finding in found:
                assert (finding.vip, finding.interface) == (VIP[4], "eth0")
                assert str(max(general, own)) in finding.reason
                node.run(*finding.fix.split())
                assert asker.ask(4, "a") == "a"
            assert findings(asker) == ()
    finally:
        rp_filter(node, 0, 0)


def test_the_tunnel_says_at_its_start_what_blocks_answers(asker: Asker, network: Network) -> None:
    assert asker.tunnel.blocked == ()
    with way_back(network.node, "by another"):
        rp_filter(network.node, 0, 1)
        other = Asker(network.node)
        asker.close()
        try:
            other.start()
            (finding,) = other.blocked()
            assert "strict" in finding.reason
            assert "x0" in finding.reason
        finally:
            other.close()
            rp_filter(network.node, 0, 0)


def test_a_sysctl_that_is_changed_later_is_noticed_and_so_is_its_repair(
    asker: Asker, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tunnel_answers, "PERIOD_S", 0.0)

    def blocked() -> bool:
        asker.look()
        return bool(asker.tunnel.blocked)

    with capture_logs() as logs:
        eventually(lambda: not blocked(), START_S, "nothing is found")
        with way_back(network.node, "by another"):
            rp_filter(network.node, 0, 1)
            try:
                eventually(blocked, START_S, "the sysctl is seen")
                blocked()
            finally:
                rp_filter(network.node, 0, 0)
            eventually(lambda: not blocked(), START_S, "it is seen to be well again")
    events = [(entry["event"], entry["vip"], entry["interface"]) for entry in logs]
    where = (VIPS[4], "eth0")
    assert events == [("probe_answers_blocked", *where), ("probe_answers_good", *where)]
