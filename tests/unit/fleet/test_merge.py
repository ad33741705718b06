"""The configuration with those who registered: who is refused, and why; order says nothing."""

import random
from ipaddress import ip_address

import pytest

from lbfwd.config import Config, parse
from lbfwd.config.model import RegisteredBackend
from lbfwd.fleet import merge as module
from lbfwd.fleet.merge import alike, merge
from lbfwd.fleet.registration import Registration

TEXT = f"""
hash_key = "{"ab" * 16}"
[node]
name = "lb1"
interfaces = ["eth0"]
source = ["10.0.0.250"]
source_entropy = ["10.0.0.128/26"]
[workers]
cpus = [0]
[fleet]
nodes = [{{ name = "lb1", addresses = ["10.0.0.251"], api = "10.0.0.251:9108" }}]
[etcd]
endpoints = ["http://10.0.0.9:2379"]
[[pool]]
name = "web"
backends = [{{ name = "fixed", address = "10.0.0.11" }}]
[pool.register]
allow = ["10.0.0.0/24", "2001:db8::7/128"]
[[pool]]
name = "closed"
backends = [{{ address = "10.0.0.21" }}]
[[service]]
name = "s"
vip = "10.0.0.99"
protocol = "tcp"
pool = "web"
"""
CONFIG = parse(TEXT, "f")


def said(address: str, since: float = 1.0, weight: int = 1) -> Registration:
    return Registration(address=ip_address(address), since=since, weight=weight)


def names(config: Config, pool: int = 0) -> list[str]:
    return [backend.name for backend in config.pools[pool].backends]


def test_registered_ones_stand_behind_the_configured_ones() -> None:
    merged = merge(
        CONFIG, {("web", "z"): said("10.0.0.12", weight=5), ("web", "b"): said("2001:db8::7")}
    )
    assert merged.refused == {}
    assert names(merged.config) == ["fixed", "b", "z"]
    added = merged.config.pools[0].backends[2]
    assert isinstance(added, RegisteredBackend)
    assert (str(added.address), added.weight) == ("10.0.0.12", 5)
    assert merged.config.pools[1] is CONFIG.pools[1]


def test_without_registrations_it_is_the_same_object() -> None:
    assert merge(CONFIG, {}).config is CONFIG


@pytest.mark.parametrize(
    ("pool", "name", "address", "reason"),
    [
        ("web", "x", "10.0.1.1", "address 10.0.1.1: outside what pool \"web\" allows (10.0.0.0/24,"
         " 2001:db8::7/128)"),
        ("web", "x", "2001:db8::8", "address 2001:db8::8: outside"),
        ("web", "x", "10.0.0.99", "address 10.0.0.99: is a VIP"),
        ("web", "x", "10.0.0.250", "address 10.0.0.250: is a node's own"),
        ("web", "x", "10.0.0.251", "address 10.0.0.251: is a node's own"),
        ("web", "x", "10.0.0.130", "address 10.0.0.130: is a node's own"),
        ("web", "fixed", "10.0.0.12", 'name "fixed": is that of a configured backend (10.0.0.11)'),
        ("web", "x", "10.0.0.11", 'address 10.0.0.11: is that of backend "fixed"'),
        ("closed", "x", "10.0.0.12", 'pool "closed": no pool of this name lets backends register'),
        ("none", "x", "10.0.0.12", 'pool "none": no pool of this name lets backends register'),
    ],
)  # fmt: skip
def test_a_refusal_names_rule_and_value(pool: str, name: str, address: str, reason: str) -> None:
    merged = merge(CONFIG, {(pool, name): said(address)})
    assert merged.refused[pool, name].startswith(reason)
    assert merged.config is CONFIG


def test_who_joined_first_keeps_an_address() -> None:
    found = {("web", "a"): said("10.0.0.12", since=2.0), ("web", "b"): said("10.0.0.12", since=1.0)}
    merged = merge(CONFIG, found)
    assert names(merged.config) == ["fixed", "b"]
    assert merged.refused == {("web", "a"): 'address 10.0.0.12: is that of backend "b"'}


def test_there_are_only_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REGISTERED", 2)
    found = {("web", f"n{n}"): said(f"10.0.0.{n}", since=10.0 - n) for n in (1, 2, 3)}
    merged = merge(CONFIG, found)
    assert names(merged.config) == ["fixed", "n2", "n3"]
    assert merged.refused == {("web", "n1"): 'pool "web": at most 2 backends can register'}


def test_order_says_nothing() -> None:
    items = [
        (("web", f"n{n}"), said(f"10.0.0.{n % 40 + 30}", since=float(n % 7))) for n in range(60)
    ]
    expected = merge(CONFIG, dict(items))
    for seed in range(20):
        random.Random(seed).shuffle(items)
        assert merge(CONFIG, dict(items)) == expected


def test_equal_pools_are_the_same_objects() -> None:
    running = merge(CONFIG, {("web", "a"): said("10.0.0.12")}).config
    again = alike(merge(CONFIG, {("web", "a"): said("10.0.0.12")}).config, running)
    assert all(new is old for new, old in zip(again.pools, running.pools, strict=True))
    other = alike(merge(CONFIG, {("web", "a"): said("10.0.0.13")}).config, running)
    assert other.pools[0] is not running.pools[0]
    assert other.pools[1] is running.pools[1]
