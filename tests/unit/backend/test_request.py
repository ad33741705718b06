from ipaddress import ip_address

import pytest

from lbfwd.backend.request import BackendError, parse


def test_each_address_is_kept_once_in_the_order_given():
    request = parse(
        ["192.0.2.11", "2001:DB8::1", "192.0.2.10", "2001:db8:0::1"], ["10.0.0.1"], 1500
    )
    assert [str(vip) for vip in request.vips] == ["192.0.2.11", "2001:db8::1", "192.0.2.10"]
    assert request.nodes == (ip_address("10.0.0.1"),)
    assert request.mtu == 1500
    assert request.vip_families() == (4, 6)
    assert request.node_families() == (4,)


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        ("192.0.2", "must be an IPv4 or IPv6 address"),
        ("192.0.2.10/32", "must be an IPv4 or IPv6 address"),
        ("", "must be an IPv4 or IPv6 address"),
        ("0.0.0.0", "must not be the unspecified address"),
        ("::", "must not be the unspecified address"),
        ("224.0.0.1", "must not be a multicast address"),
        ("ff02::1", "must not be a multicast address"),
        ("127.0.0.1", "must not be a loopback address"),
        ("::1", "must not be a loopback address"),
        ("169.254.1.1", "must not be a link-local address"),
        ("fe80::1%eth0", "must not be a link-local address"),
        ("255.255.255.255", "must not be the broadcast address"),
        ("::ffff:192.0.2.10", "must not be an IPv4 address in IPv6 notation"),
    ],
)
@pytest.mark.parametrize("option", ["--vip", "--node"])
def test_a_bad_address_is_named_with_its_option_and_the_rule(option, value, rule):
    vips, nodes = (["192.0.2.1"], ["10.0.0.1"])
    (vips if option == "--vip" else nodes).append(value)
    with pytest.raises(BackendError) as refused:
        parse(vips, nodes)
    assert f"{option} {value}: {rule}" in str(refused.value).splitlines()


def test_every_problem_is_told_at_once():
    with pytest.raises(BackendError) as refused:
        parse(["x", "10.0.0.1"], ["y", "10.0.0.1"], 100)
    assert str(refused.value).splitlines() == [
        "--vip x: must be an IPv4 or IPv6 address",
        "--node y: must be an IPv4 or IPv6 address",
        "--node 10.0.0.1: is also a VIP",
        "--mtu 100: must be 576 to 65535 bytes",
    ]


@pytest.mark.parametrize("mtu", [575, 65536, 0, -1])
def test_an_impossible_mtu_is_refused(mtu):
    with pytest.raises(BackendError, match=f"--mtu {mtu}: must be 576 to 65535 bytes"):
        parse(["192.0.2.1"], ["10.0.0.1"], mtu)
