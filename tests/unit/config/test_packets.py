"""Keys that say what becomes of a VIP's packets: [flows], echo, outer header, empty services."""

from ipaddress import ip_address, ip_network

import pytest

from lbfwd.config import entropy_bits
from tests.unit.config.samples import FILE, GOOD, accepted, change, places, refused

FLOWS = "[[pool]]", "[flows]\n{}\n[[pool]]"
NODE = 'name = "lb1"', "{}"
SERVICE = "port = 80", "{}"


def with_key(place: tuple[str, str], text: str) -> str:
    return change(place[0], place[1].format(text))


def test_defaults() -> None:
    config = accepted(GOOD)
    assert config.flows.model_dump() == {
        "tcp_idle_s": 900,
        "tcp_closing_s": 60,
        "udp_idle_s": 120,
        "unconfirmed_s": 30,
    }
    assert (config.node.echo, config.node.outer_df) == ("reply", True)
    assert config.node.source_entropy == ()
    assert config.services[0].empty == "drop"


def test_all_can_be_set() -> None:
    text = with_key(FLOWS, "tcp_idle_s = 1\ntcp_closing_s = 2\nudp_idle_s = 3\nunconfirmed_s = 4")
    keys = 'echo = "backend"\nouter_df = false\n'
    keys += 'source_entropy = ["10.99.0.0/16", "2001:DB8:99::/64"]'
    text = change('name = "lb1"', keys, change("port = 80", 'empty = "reject"', text))
    config = accepted(text)
    assert list(config.flows.model_dump().values()) == [1, 2, 3, 4]
    assert (config.node.echo, config.node.outer_df) == ("backend", False)
    assert config.services[0].empty == "reject"
    prefixes = [ip_network("10.99.0.0/16"), ip_network("2001:db8:99::/64")]
    assert list(config.node.source_entropy) == prefixes
    assert [entropy_bits(prefix) for prefix in prefixes] == [16, 32]


@pytest.mark.parametrize("seconds", [1, 32767])
def test_the_bounds_of_flow_times_are_allowed(seconds: int) -> None:
    assert accepted(with_key(FLOWS, f"tcp_idle_s = {seconds}")).flows.tcp_idle_s == seconds


@pytest.mark.parametrize("prefix", ["10.0.0.0/8", "10.99.0.2/31", "2001:db8::2/127", "2000::/8"])
def test_the_bounds_of_prefixes_are_allowed(prefix: str) -> None:
    text = change("10.0.0.1", "172.16.0.1", change("10.0.0.12", "172.16.0.2"))
    text = change('name = "lb1"', f'source_entropy = ["{prefix}"]', text)
    assert accepted(text).node.source_entropy == (ip_network(prefix),)


def test_a_prefix_with_a_vip_or_backend_in_it_names_both() -> None:
    text = 'source_entropy = ["{}"]'
    for prefix, holder in (
        ("192.0.2.0/24", 'service "web".vip'),
        ("10.0.0.12/31", 'pool "web".backends[1].address'),
    ):
        (problem,) = refused(with_key(NODE, text.format(prefix)))
        assert (problem.key, problem.value) == ("node.source_entropy[0]", f'"{prefix}"')
        assert problem.rule == f"{holder} lies in it; a prefix is needed that nobody else uses"
    assert ip_address("10.0.0.12") in ip_network("10.0.0.12/31")
    accepted(with_key(NODE, text.format("10.0.0.14/31")))


@pytest.mark.parametrize(
    ("place", "text", "key", "value", "rule"),
    [
        (FLOWS, "tcp_idle_s = 0", "flows.tcp_idle_s", "0", "a whole number from 1 to 32767"),
        (FLOWS, "tcp_closing_s = 32768", "flows.tcp_closing_s", "32768", "from 1 to 32767"),
        (FLOWS, "udp_idle_s = 1.5", "flows.udp_idle_s", "1.5", "a whole number"),
        (FLOWS, 'unconfirmed_s = "30"', "flows.unconfirmed_s", '"30"', "a whole number"),
        (FLOWS, "tcp_idle = 3", "flows.tcp_idle", "3", "did you mean tcp_idle_s?"),
        (NODE, "tcp_idle_s = 3", "node.tcp_idle_s", "3", "its place is [flows]"),
        (NODE, 'echo = "yes"', "node.echo", '"yes"', '"reply", "backend" or "drop"'),
        (NODE, "outer_df = 1", "node.outer_df", "1", "true or false"),
        (SERVICE, 'empty = "rst"', 'service "web".empty', '"rst"', '"drop" or "reject"'),
        (NODE, 'source_entropy = "10.9.0.0/16"', "node.source_entropy", '"10.9.0.0/16"', "array"),
    ],
)
def test_one_mistake_is_one_problem(
    place: tuple[str, str], text: str, key: str, value: str, rule: str
) -> None:
    (problem,) = refused(with_key(place, text))
    assert (problem.file, problem.key, problem.value) == (FILE, key, value)
    assert rule in problem.rule


@pytest.mark.parametrize(
    ("prefix", "rule"),
    [
        ("3", "a prefix in quotes"),
        ('"10.99.0.0"', "a prefix in quotes"),
        ('"10.99.0.0/33"', "not an IPv4 or IPv6 prefix"),
        ('"fe80::%eth0/64"', "without a zone"),
        ('"10.99.0.1/16"', "10.99.0.0/16 is meant"),
        ('"10.99.0.0/32"', "from /8 to /31"),
        ('"2001:db8::1/128"', "from /8 to /127"),
        ('"0.0.0.0/0"', "from /8 to /31"),
        ('"224.0.0.0/8"', "multicast"),
        ('"127.0.0.0/8"', "loopback"),
        ('"fe80::/64"', "link-local"),
        ('"::ffff:10.0.0.0/104"', "IPv4-mapped"),
    ],
)
def test_a_prefix_that_cannot_be_used(prefix: str, rule: str) -> None:
    (problem,) = refused(with_key(NODE, f"source_entropy = [{prefix}]"))
    assert (problem.key, problem.value) == ("node.source_entropy[0]", prefix)
    assert rule in problem.rule


def test_two_prefixes_of_a_family() -> None:
    text = 'source_entropy = ["10.98.0.0/16", "10.99.0.0/16"]'
    (problem,) = refused(with_key(NODE, text))
    assert problem.key == "node.source_entropy"
    assert problem.rule == "at most one prefix of each family (IPv4, IPv6)"


def test_a_bad_prefix_is_not_compared_with_addresses() -> None:
    text = change("192.0.2.10", "192.0.2.300", with_key(NODE, 'source_entropy = ["192.0.2.1/24"]'))
    assert places(text) == [
        ("node.source_entropy[0]", '"192.0.2.1/24"'),
        ('service "web".vip', '"192.0.2.300"'),
    ]
