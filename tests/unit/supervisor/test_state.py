"""From configuration and network to the forwarding state."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from lbfwd.forwarding import Forwarding
from lbfwd.health.standing import Standing
from lbfwd.net.resolve import Resolution
from lbfwd.supervisor.state import derive, hops_by_weight
from tests.unit.supervisor.build import config, hop, link, resolved

A, B = ip_address("10.0.0.1"), ip_address("10.0.0.2")
ETH1 = link("eth1", 3)
ETH2 = link("eth2", 4, mtu=9000)


def test_services_keep_what_was_configured() -> None:
    http, any_port = derive(config(), {}, {}).forwarding.services
    assert (http.name, str(http.vip), http.protocol, http.port) == ("http", "192.0.2.10", "tcp", 80)
    assert (http.affinity, http.pool) == ("5-tuple", "web")
    assert (str(any_port.vip), any_port.port, any_port.affinity) == ("2001:db8::10", 0, "source")


def test_what_becomes_of_packets_is_passed_on() -> None:
    forwarding = derive(
        config(
            ("[[pool]]", "[flows]\ntcp_idle_s = 1\ntcp_closing_s = 2\n"
             "udp_idle_s = 3\nunconfirmed_s = 4\n[[pool]]"),
            ('"lb1"', '"lb1"\necho = "backend"'),
            ("port = 80", 'port = 80\nempty = "reject"'),
        ), {}, {}
    ).forwarding  # fmt: skip
    times = forwarding.flow_times
    assert (times.tcp_idle_s, times.tcp_closing_s) == (1, 2)
    assert (times.udp_idle_s, times.unconfirmed_s) == (3, 4)
    assert forwarding.echo == "backend"
    assert [service.empty for service in forwarding.services] == ["reject", "drop"]


def test_the_defaults_of_forwarding_are_those_of_the_configuration() -> None:
    forwarding = derive(config(), {}, {}).forwarding
    bare = Forwarding(forwarding.hash_key, forwarding.services, forwarding.pools)
    assert (forwarding.flow_times, forwarding.echo) == (bare.flow_times, bare.echo)


@pytest.mark.parametrize("df", [True, False])
def test_df_of_the_outer_header_is_configured(df: bool) -> None:
    text = ('"lb1"', f'"lb1"\nouter_df = {str(df).lower()}')
    found = {A: resolved(hop("10.0.0.253", ETH1))}
    (pool,) = derive(config(text), found, {3: 0}).forwarding.pools
    assert pool.members[0].paths[0].may_fragment is not df


def test_the_outer_source_comes_from_the_prefix_of_its_family() -> None:
    prefixes = ('"lb1"', '"lb1"\nsource_entropy = ["10.99.0.0/20", "2001:db8:99::/64"]')
    six = ("10.0.0.2", "2001:db8::2")
    found = {
        A: resolved(hop("10.0.0.253", ETH1)),
        ip_address(six[1]): resolved(hop(six[1], ETH1)),
    }
    (pool,) = derive(config(prefixes, six), found, {3: 0}).forwarding.pools
    four, other = (member.paths[0] for member in pool.members)
    assert (str(four.source), four.entropy_bits) == ("10.99.0.0", 12)
    assert (str(other.source), other.entropy_bits) == ("2001:db8:99::", 32)
    (only4,) = derive(config(('"lb1"', '"lb1"\nsource_entropy = ["2001:db8:99::/64"]')),
                      found, {3: 0}).forwarding.pools  # fmt: skip
    assert (str(only4.members[0].paths[0].source), only4.members[0].paths[0].entropy_bits) == (
        "10.0.0.254",
        0,
    )


def test_the_hash_key_is_passed_on() -> None:
    assert derive(config(), {}, {}).forwarding.hash_key == bytes(range(16))


def test_a_path_is_made_of_hop_backend_and_ring() -> None:
    found = {A: resolved(hop("10.0.0.253", ETH2)), B: resolved(hop("10.0.0.2", ETH1))}
    (pool,) = derive(config(), found, {3: 7, 4: 9}).forwarding.pools
    (path,) = pool.members[0].paths
    assert path.src_mac == ETH2.mac
    assert path.dst_mac == bytes([2, 0, 0, 0, 1, 0xAA])
    assert (path.destination, path.source) == (A, ip_address("10.0.0.254"))
    assert (path.tx, path.mtu) == (9, 9000)
    assert pool.members[1].paths[0].tx == 7
    assert [member.effective_weight for member in pool.members] == [2, 1]


def test_a_multipath_backend_has_all_its_paths_in_order() -> None:
    found = {A: resolved(hop("10.0.0.253", ETH1, 1), hop("10.0.1.253", ETH2, 2))}
    (pool,) = derive(config(), found, {3: 0, 4: 1}).forwarding.pools
    assert [(path.tx, path.dst_mac[5]) for path in pool.members[0].paths] == [(0, 1), (1, 2)]


def test_a_backend_without_next_hop_gets_no_traffic_and_its_reason_is_kept() -> None:
    found = {
        A: Resolution(hops=(), reason="no route"),
        B: resolved(hop("10.0.0.2", ETH1)),
    }
    state = derive(config(), found, {3: 0})
    (pool,) = state.forwarding.pools
    assert pool.members[0].paths == ()
    assert pool.members[0].effective_weight == 0
    assert state.unusable == {("web", "a"): "no route"}
    assert state.usable == {("web", "b")}


def test_a_hop_without_a_ring_is_left_out() -> None:
    found = {
        A: resolved(hop("10.0.0.253", ETH1), hop("10.0.1.253", ETH2)),
        B: resolved(hop("10.0.0.2", ETH1)),
    }
    state = derive(config(), found, {4: 0})
    (pool,) = state.forwarding.pools
    assert [path.tx for path in pool.members[0].paths] == [0]
    assert state.unusable == {("web", "b"): "no TX ring on eth1"}


def test_equal_networks_give_equal_states() -> None:
    def once() -> object:
        found = {A: resolved(hop("10.0.0.253", link("eth1", 3)))}
        return derive(config(), found, {3: 0}).forwarding

    assert once() == once()


@pytest.mark.parametrize(
    ("weights", "paths"),
    [((1,), [1]), ((1, 1), [1, 1]), ((5, 10), [1, 2]), ((1, 3), [1, 3]), ((1, 256), [1, 64])],
)
def test_hops_of_a_multipath_route_have_paths_by_their_weights(
    weights: tuple[int, ...], paths: list[int]
) -> None:
    hops = [replace(hop(f"10.0.0.{n}", link("e0", 2)), weight=w) for n, w in enumerate(weights)]
    spread = hops_by_weight(hops)
    assert [spread.count(one) for one in hops] == paths


# ---- standings ----

STANDINGS = {
    ("web", "a"): Standing("starting", 1, True, "slow start", 0.0),
    ("web", "b"): Standing("down", 0, False, "connection refused", 0.0),
}
BOTH = {A: resolved(hop("10.0.0.253", ETH1)), B: resolved(hop("10.0.0.2", ETH1))}


def test_a_standing_gives_the_weight_and_takes_the_paths() -> None:
    state = derive(config(), BOTH, {3: 0}, STANDINGS)
    first, second = state.forwarding.pools[0].members
    assert (first.weight, len(first.paths)) == (1, 1)
    assert (second.weight, second.paths) == (0, ())
    assert state.usable == {("web", "a")}
    assert state.unusable == {}, "the network is not to blame"


def test_one_that_drains_keeps_its_paths() -> None:
    drained = {("web", "a"): Standing("drained", 0, True, "", 0.0)}
    first, second = derive(config(), BOTH, {3: 0}, drained).forwarding.pools[0].members
    assert (first.weight, len(first.paths), first.effective_weight) == (0, 1, 0)
    assert second == derive(config(), BOTH, {3: 0}).forwarding.pools[0].members[1]


def test_a_standing_cannot_make_a_backend_reachable() -> None:
    found = {A: Resolution(hops=(), reason="no route"), B: BOTH[B]}
    up = {("web", "a"): Standing("up", 2, True, "", 0.0)}
    state = derive(config(), found, {3: 0}, up)
    assert state.forwarding.pools[0].members[0].effective_weight == 0
    assert state.unusable == {("web", "a"): "no route"}
