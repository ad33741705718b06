"""What a reload would do, against tables of the oracle."""

import itertools
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from ipaddress import ip_address

import pytest

from lbfwd.config import Config
from lbfwd.forwarding import Forwarding, PathSpec
from lbfwd.supervisor.forecast import ServiceForecast, Side, forecast
from lbfwd.supervisor.state import derive
from lbfwd.tables import FlowCount, FlowKey
from tests.oracle import maglev
from tests.unit.supervisor.build import config, hop, link, resolved

HTTP = (ip_address("192.0.2.10"), "tcp", 80)
ANY = (ip_address("2001:db8::10"), "udp", 0)
A, B = ("web", "a", ip_address("10.0.0.1")), ("web", "b", ip_address("10.0.0.2"))
C = '{ name = "c", address = "10.0.0.3" },'
B_LINE = '  { name = "b", address = "10.0.0.2" },\n'
FLOWS: dict[FlowKey, FlowCount] = {
    (HTTP, A): FlowCount(100, 10),
    (HTTP, B): FlowCount(50, 5),
    (ANY, B): FlowCount(7),
}


def side(of: Config) -> Side:
    over = link("eth1", 3)
    found = {b.address: resolved(hop(str(b.address), over)) for p in of.pools for b in p.backends}
    return Side(of, derive(of, found, {3: 0}).forwarding)


def foresee(*replacements: tuple[str, str]) -> dict[str, ServiceForecast]:
    found = forecast(side(config()), side(config(*replacements)), FLOWS)
    return {service.name: service for service in found}


def moved(old: dict[str, int], new: dict[str, int], size: int = 251) -> int:
    """Buckets that go to another backend, counted in the oracle's tables."""
    tables = maglev.table(old, size), maglev.table(new, size)
    return sum(a != b for a, b in zip(*tables, strict=True))


def test_nothing_changes() -> None:
    assert foresee() == {}


@pytest.mark.parametrize(
    ("change", "new"),
    [
        (("weight = 2", "weight = 5"), {"a": 5, "b": 1}),
        ((B_LINE, B_LINE + C), {"a": 2, "b": 1, "c": 1}),
        ((B_LINE, ""), {"a": 2}),
        (('"10.0.0.2" }', '"10.0.0.2", weight = 0 }'), {"a": 2, "b": 0}),
    ],
)
def test_buckets_that_move_are_those_of_the_tables(
    change: tuple[str, str], new: dict[str, int]
) -> None:
    found = foresee(change)
    buckets = moved({"a": 2, "b": 1}, new)
    assert buckets > 0
    assert {name: service.buckets for name, service in found.items()} == {
        "http": buckets,
        "any": buckets,
    }
    assert found["http"].moved == pytest.approx(buckets / 251)


def test_flows_of_a_backend_that_leaves_break_and_no_other() -> None:
    found = foresee((B_LINE, ""))
    assert (found["http"].flows, found["http"].closing, found["http"].breaking) == (150, 15, 50)
    assert (found["any"].flows, found["any"].breaking) == (7, 7)
    assert found["http"].removed == ("b",)


def test_flows_of_a_backend_that_drains_stay() -> None:
    found = foresee(('"10.0.0.2" }', '"10.0.0.2", weight = 0 }'))
    assert found["http"].breaking == 0
    (weight,) = found["http"].reweighted
    assert (weight.backend, weight.old, weight.new) == ("b", 1, 0)


def test_another_address_is_another_server() -> None:
    found = foresee(("10.0.0.2", "10.0.0.9"))
    share = Counter(maglev.table({"a": 2, "b": 1}, 251))["b"]
    assert found["http"].buckets == share
    assert (found["http"].added, found["http"].removed) == (("b",), ("b",))
    assert found["http"].breaking == 50


def test_another_pool_with_the_same_servers_breaks_nothing() -> None:
    assert foresee(('name = "web"', 'name = "www"'), ('pool = "web"', 'pool = "www"')) == {}


def test_services_come_and_go() -> None:
    found = foresee(("port = 80", "port = 81"))
    assert {(s.name, s.fate) for s in forecast(
        side(config()), side(config(("port = 80", "port = 81"))), FLOWS
    )} == {("http", "added"), ("http", "removed")}  # fmt: skip
    assert set(found) == {"http"}
    (gone,) = [s for s in forecast(side(config()), side(config(("port = 80", "port = 81"))), FLOWS)
               if s.fate == "removed"]  # fmt: skip
    assert (gone.moved, gone.flows, gone.breaking) == (1.0, 150, 150)


def test_tables_of_two_sizes_are_compared_hash_by_hash() -> None:
    """Every hash that either table distinguishes: those where a bucket of one of them begins."""
    old = maglev.table({"a": 2, "b": 1}, 251)
    new = maglev.table({"a": 2, "b": 1}, 257)
    starts = sorted({Fraction(i, m) for m in (251, 257) for i in range(m)} | {Fraction(1)})
    exact = sum(
        end - start
        for start, end in itertools.pairwise(starts)
        if old[int(start * 251)] != new[int(start * 257)]
    )
    found = foresee(("251", "257"))
    assert found["http"].moved == pytest.approx(float(exact), abs=1e-6)
    assert found["http"].buckets is None
    assert found["http"].breaking == 0, "the flow table keeps them"


def test_another_secret_places_every_flow_anew() -> None:
    found = foresee(("000102030405060708090a0b0c0d0e0f", "f" * 32))
    share = Fraction(Counter(maglev.table({"a": 2, "b": 1}, 251))["a"], 251)
    stay = share * share + (1 - share) * (1 - share)
    assert found["http"].moved == pytest.approx(float(1 - stay))
    expected = 100 * (1 - share) + 50 * share
    assert found["http"].breaking == pytest.approx(float(expected), abs=1)
    assert found["http"].buckets is None


def test_another_affinity_concerns_its_service_only() -> None:
    found = foresee(('affinity = "source"', 'affinity = "5-tuple"'))
    assert set(found) == {"any"}


def test_one_server_has_all_flows_before_and_after() -> None:
    alone = (B_LINE, "")
    old, new = side(config(alone)), side(config(alone, ("0001020304", "ffffffffff")))
    assert forecast(old, new, {(HTTP, A): FlowCount(9)}) == ()


def test_a_pool_that_was_empty_breaks_nothing() -> None:
    whole = side(config())
    empty = replace(whole, forwarding=without_paths(whole.forwarding))
    found = forecast(empty, whole, {})
    assert found == ()
    assert [(s.moved, s.breaking) for s in forecast(whole, empty, FLOWS)] == [(1.0, 7), (1.0, 150)]


def without_paths(forwarding: Forwarding) -> Forwarding:
    none: tuple[PathSpec, ...] = ()
    pools = tuple(
        replace(pool, members=tuple(replace(member, paths=none) for member in pool.members))
        for pool in forwarding.pools
    )
    return replace(forwarding, pools=pools)
