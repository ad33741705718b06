"""What this node's own kernel refuses to send is told apart from what the network says.

node n0 10.0.0.1 ── r0 10.0.0.2 router, which has no route to 10.9.0.0/16
"""

from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from lbfwd.demo.lab import Host, Lab
from lbfwd.health.outcome import Outcome
from lbfwd.health.question import Ask, Dns, Http, Question, Tcp, Udp
from lbfwd.health.route import Direct
from tests.topology.health.tunnel_site import Loop, probed

pytestmark = pytest.mark.topology

FAR, NEAR = ip_address("10.9.0.1"), ip_address("10.0.0.2")
FAR6 = ip_address("2001:db8:9::1")
ASKS: dict[str, Ask] = {
    "tcp": Tcp(),
    "http": Http(path="/", host="", statuses=((200, 200),), body=b""),
    "udp": Udp(b"anybody?", b"yes"),
    "dns": Dns("example.com", 1, 0),
}
every_type = pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)
DROP_ALL = "table inet test { chain output { type filter hook output priority 0; drop; }; }"


@pytest.fixture(scope="module")
def node() -> Iterator[Host]:
    with Lab() as lab:
        node, router = lab.host("node"), lab.host("router")
        lab.link(node, "n0", ["10.0.0.1/24"], router, "r0", ["10.0.0.2/24"])
        router.sysctl(ipv4__ip_forward=1, ipv4__icmp_ratelimit=0)
        yield node


@pytest.fixture(scope="module")
def loop(node: Host) -> Iterator[Loop]:
    loop = Loop(node)
    try:
        yield loop
    finally:
        loop.close()


def outcome(loop: Loop, ask: Ask, target: str) -> Outcome:
    to = ip_address(target)
    return loop.do(probed(Question(to, 80, None, ask, 1000, 1000), Direct(to)))


@every_type
@pytest.mark.parametrize("target", [str(FAR), str(FAR6)])
def test_without_a_route_it_is_not_sent(loop: Loop, ask: Ask, target: str) -> None:
    found = outcome(loop, ask, target)
    assert (found.name, found.detail) == (
        "not_sent", "this node could not send: Network is unreachable",
    )  # fmt: skip
    assert found.ours


@pytest.mark.parametrize("kind", ["blackhole", "unreachable", "prohibit"])
@every_type
def test_a_route_that_refuses_is_this_nodes(node: Host, loop: Loop, ask: Ask, kind: str) -> None:
    node.run("ip", "route", "add", kind, "10.9.0.0/16")
    try:
        assert outcome(loop, ask, str(FAR)).name == "not_sent"
    finally:
        node.run("ip", "route", "del", kind, "10.9.0.0/16")


@pytest.mark.parametrize("ask", [ASKS["udp"], ASKS["dns"]], ids=["udp", "dns"])
def test_a_firewall_of_this_nodes_is_not_the_backend(node: Host, loop: Loop, ask: Ask) -> None:
    node.run("nft", "-f", "-", stdin=DROP_ALL)
    try:
        found = outcome(loop, ask, str(NEAR))
        assert (found.name, found.detail) == (
            "not_sent",
            "this node could not send: a firewall rule",
        )
    finally:
        node.run("nft", "delete", "table", "inet", "test")


@every_type
def test_what_a_router_says_counts(node: Host, loop: Loop, ask: Ask) -> None:
    node.run("ip", "route", "add", "10.9.0.0/16", "via", str(NEAR))
    try:
        assert outcome(loop, ask, str(FAR)).name == "unreachable"
    finally:
        node.run("ip", "route", "del", "10.9.0.0/16")


@every_type
def test_a_closed_port_counts(loop: Loop, ask: Ask) -> None:
    assert outcome(loop, ask, str(NEAR)).name == "refused"
