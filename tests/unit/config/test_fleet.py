"""``[fleet]`` and ``[etcd]``: what they may hold."""

import pytest

from lbfwd.config import ConfigError, parse
from tests.unit.config.test_shared import OWN, SHARED

NODES = """
[fleet]
nodes = [
  { name = "lb1", addresses = ["203.0.113.10", "2001:db8::1"], api = "203.0.113.10:9108" },
  { name = "lb2", addresses = ["203.0.113.11"], api = "[2001:db8::2]:9108" },
]
"""
ETCD = """
[etcd]
endpoints = ["https://10.0.0.5:2379", "https://etcd.example.com:2379/"]
ca_file = "ca"
certificate_file = "cert"
key_file = "key"
user = "lbfwd"
password_file = "password"
"""


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(OWN + SHARED + text, "f")
    return [str(problem) for problem in caught.value.problems]


def test_a_fleet_and_its_etcd() -> None:
    config = parse(OWN + SHARED + NODES + ETCD, "f")
    assert [(node.name, node.api) for node in config.fleet.nodes] == [
        ("lb1", "203.0.113.10:9108"),
        ("lb2", "[2001:db8::2]:9108"),
    ]
    assert config.etcd.endpoints == ("https://10.0.0.5:2379", "https://etcd.example.com:2379")


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"lb2"', '"lb1"', 'nodes[1].name = "lb1": two nodes cannot have one name; nodes[0] has'),
        ("113.11", "113.10", 'nodes[1].addresses[0] = "203.0.113.10": an address belongs to one'),
        ("203.0.113.11", "192.0.2.10", 'nodes[1].addresses[0] = "192.0.2.10": the VIP of service['),
        ('"lb1"', '"lb3"', 'nodes = ["lb3", "lb2"]: this node (node.name = "lb1") must be one'),
        ("2001:db8::1", "203.0.113.1", "at most one address of each family"),
        ("203.0.113.10:9108", "", 'nodes[0].api = "": a node of the fleet is asked there'),
        (":9108", "", 'nodes[0].api = "203.0.113.10": an address and a port'),
    ],
)
def test_mistakes_in_the_fleet(old: str, new: str, problem: str) -> None:
    assert any(problem in found for found in problems(NODES.replace(old, new)))


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("10.0.0.5:2379", "10.0.0.5", 'endpoints[0] = "https://10.0.0.5": a URL such as'),
        ("https://10", "ftp://10", 'endpoints[0] = "ftp://10.0.0.5:2379": a URL such as'),
        ("5:2379", "5:2379/v3", "a URL such as"),
        ("https://etcd", "https://u:p@etcd", "a URL such as"),
        ('key_file = "key"', "", 'etcd.certificate_file = "cert": needs key_file, too'),
        ('certificate_file = "cert"', "", 'etcd.key_file = "key": needs certificate_file, too'),
        ('password_file = "password"', "", 'etcd.user = "lbfwd": needs password_file, too'),
        ("https", "http", 'etcd.ca_file = "ca": for TLS: no endpoint begins with https://'),
        ('ca_file = "ca"', 'prefix = "lbfwd"', 'etcd.prefix = "lbfwd": printable ASCII'),
        ('ca_file = "ca"', "ca_file = 1", "etcd.ca_file = 1: a text in quotes"),
    ],
)
def test_mistakes_about_etcd(old: str, new: str, problem: str) -> None:
    assert any(problem in found for found in problems(ETCD.replace(old, new)))


def test_without_endpoints_nothing_is_used() -> None:
    (found, *_) = problems('[etcd]\nuser = "lbfwd"\npassword_file = "p"\n')
    assert found == 'f: etcd.user = "lbfwd": without endpoints there is no etcd to use'
