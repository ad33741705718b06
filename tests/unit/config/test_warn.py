"""Warnings, with a slow and obvious Maglev table and made-up addresses."""

from collections.abc import Sequence
from fractions import Fraction
from ipaddress import ip_address, ip_network

import mmh3
import pytest

from lbfwd.config import Config, Problem
from lbfwd.config.hardware import Hardware
from lbfwd.config.warn import LocalAddress, warnings
from tests.unit.config.samples import FILE, GOOD, accepted, change

BACKENDS = '[{ address = "10.0.0.11" }, { name = "b", address = "10.0.0.12" }]'
HERE = (
    LocalAddress("lo", ip_address("127.0.0.1"), ip_network("127.0.0.0/8")),
    LocalAddress("eth0", ip_address("203.0.113.10"), ip_network("203.0.113.0/24")),
    LocalAddress("eth0", ip_address("2001:db8::10"), ip_network("2001:db8::/64")),
)


def slow_shares(names: Sequence[str], weights: Sequence[int], size: int) -> list[int]:
    """Maglev as the paper tells it (section 3.4), one turn at a time, in exact fractions."""
    slots: list[str | None] = [None] * size
    by_name = sorted(zip(names, weights, strict=True), key=lambda pair: pair[0].encode())
    wishes = {}
    for name, _ in by_name:
        h1, h2 = mmh3.hash64(name, seed=0, signed=False)
        wishes[name] = iter([(h1 % size + j * (h2 % (size - 1) + 1)) % size for j in range(size)])
    turn = 0
    while None in slots:
        turn += 1
        for name, weight in by_name:
            share = Fraction(weight, max(weights))
            if turn * share // 1 > (turn - 1) * share // 1 and None in slots:
                slots[next(slot for slot in wishes[name] if slots[slot] is None)] = name
    return [slots.count(name) for name in names]


def found(config: Config, here: Sequence[LocalAddress] = HERE) -> list[Problem]:
    return list(warnings(config, FILE, local=here, shares=slow_shares, hardware=Hardware()))


def with_pool(size: int, *weights: int) -> Config:
    backends = ", ".join(
        f'{{ name = "b{i}", address = "10.0.1.{i}", weight = {weight} }}'
        for i, weight in enumerate(weights)
    )
    return accepted(
        change(f"backends = {BACKENDS}", f"table_size = {size}\nbackends = [{backends}]")
    )


def test_nothing_to_say() -> None:
    assert found(with_pool(211, 1, 1)) == []


def test_a_table_below_100_slots_a_backend() -> None:
    (problem,) = found(with_pool(199, 1, 1))
    assert (problem.key, problem.value) == ('pool "web".table_size', "199")
    assert "less than 100 slots for each of 2 backends" in problem.rule


def test_a_weight_without_a_slot() -> None:
    (problem,) = found(with_pool(503, 65535, 1, 60000, 0))
    assert problem.rule == "the table is too small for these weights; no slot for b1"


def test_a_share_far_off_its_weight() -> None:
    # 307 slots, weights 1000 and 5: b1's share is 1.53 slots, and slots are whole.
    config = with_pool(307, 1000, 5)
    won = slow_shares(["b0", "b1"], [1000, 5], 307)
    (problem,) = found(config)
    assert won[1] in (1, 2)
    assert f"5% off their weight: b1 (worst: b1 has {won[1]} slots instead of 1.5)" in problem.rule


def test_many_backends_give_one_warning() -> None:
    problems = found(with_pool(11, *[1] * 8))
    assert [p.key for p in problems] == ['pool "web".table_size'] * 2
    assert "and 3 more" in problems[1].rule


def test_all_weights_zero() -> None:
    (problem,) = found(with_pool(211, 0, 0))
    assert (problem.key, problem.rule) == (
        'pool "web"',
        "every weight is 0: the pool gets no new flows",
    )


def test_unused() -> None:
    config = accepted(GOOD[: GOOD.index("[[service]]")] + "")
    keys = [
        (p.key, p.rule)
        for p in warnings(config, FILE, local=HERE, shares=lambda *_: (1, 1), hardware=Hardware())
    ]
    assert keys[:2] == [
        ("service", "no service: nothing will be forwarded"),
        ('pool "web"', "no service uses this pool"),
    ]


def vip_warnings(vip: str) -> list[tuple[str, str, str]]:
    config = accepted(change("192.0.2.10", vip))
    problems = warnings(
        config, FILE, local=HERE, shares=lambda *_: (32769, 32768), hardware=Hardware()
    )
    return [(p.key, p.value, p.rule) for p in problems]


def test_vip_elsewhere() -> None:
    assert vip_warnings("203.0.114.1") == []
    assert vip_warnings("2001:db8:0:1::1") == []


def test_vip_in_a_connected_prefix() -> None:
    ((key, value, rule),) = vip_warnings("203.0.113.99")
    assert (key, value) == ('service "web".vip', '"203.0.113.99"')
    assert "connected prefix 203.0.113.0/24 of eth0" in rule
    assert "answer ARP" in rule
    ((_, _, rule),) = vip_warnings("2001:db8::99")
    assert "answer neighbour discovery" in rule


def test_vip_that_is_a_local_address() -> None:
    ((_, _, rule),) = vip_warnings("203.0.113.10")
    assert rule.startswith("also an address of this machine (eth0)")


def test_a_vip_of_two_services_is_warned_of_once() -> None:
    text = change("192.0.2.10", "203.0.113.99")
    second = text[text.index("[[service]]") :].replace('name = "web"\n', "").replace("80", "81")
    problems = warnings(
        accepted(text + second), FILE, local=HERE, shares=lambda *_: (9, 9), hardware=Hardware()
    )
    assert [p.key for p in problems if "connected" in p.rule] == ['service "web".vip']


def test_source_of_another_machine() -> None:
    config = accepted(change('name = "lb1"', 'source = ["203.0.113.11", "2001:db8::10"]'))
    problems = warnings(
        config, FILE, local=HERE, shares=lambda *_: (32769, 32768), hardware=Hardware()
    )
    assert [(p.key, p.value) for p in problems] == [("node.source[0]", '"203.0.113.11"')]


def test_a_password_for_etcd_that_crosses_the_network_unencrypted() -> None:
    def with_etcd(endpoint: str) -> Config:
        text = f'[etcd]\nendpoints = ["{endpoint}"]\nuser = "u"\npassword_file = "p"\n'
        return accepted(change("[[pool]]", f"{text}[[pool]]", GOOD))

    told = [
        problem for problem in found(with_etcd("http://10.0.0.5:2379")) if "etcd" in problem.key
    ]
    assert [(problem.key, problem.value) for problem in told] == [("etcd.user", '"u"')]
    assert "unencrypted to http://10.0.0.5:2379" in told[0].rule
    assert not [p for p in found(with_etcd("https://10.0.0.5:2379")) if "etcd" in p.key]


def test_a_node_whose_services_come_from_etcd_lacks_none() -> None:
    bare = GOOD[: GOOD.index("[[pool]]")]
    assert [p.key for p in found(accepted(bare)) if "no service" in p.rule] == ["service"]
    etcd = '[etcd]\nendpoints = ["http://10.0.0.5:2379"]\n'
    assert not [p for p in found(accepted(bare + etcd)) if "no service" in p.rule]


FLEET = """
[fleet]
fragments = "{fragments}"
nodes = [
  {{ name = "lb1", addresses = ["203.0.113.10"], api = "203.0.113.10:9108" }},
  {{ name = "lb2", addresses = ["203.0.113.11"], api = "203.0.113.11:9108" }},
]
[metrics]
listen = "{listen}"
"""


@pytest.mark.parametrize("listen", ["", "127.0.0.1:9108", "[::1]:9108"])
@pytest.mark.parametrize(
    ("fragments", "says"),
    [("local", "none sees this one"), ("peer", "none sees this one and gives it no fragments")],
)
def test_a_node_that_no_other_can_ask(listen: str, fragments: str, says: str) -> None:
    config = accepted(GOOD + FLEET.format(listen=listen, fragments=fragments))
    (warning,) = (problem for problem in found(config) if problem.key == "metrics.listen")
    assert warning.rule == f"no other node of [fleet] reaches it: {says}"


@pytest.mark.parametrize("listen", ["0.0.0.0:9108", "203.0.113.10:9108", "[2001:db8::1]:9108"])
def test_a_node_that_others_can_ask(listen: str) -> None:
    config = accepted(GOOD + FLEET.format(listen=listen, fragments="peer"))
    assert [problem for problem in found(config) if problem.key == "metrics.listen"] == []


@pytest.mark.parametrize(("fragments", "told"), [("peer", ['"203.0.113.12"']), ("local", [])])
def test_fragments_that_are_handed_over_to_another_machine(fragments: str, told: list[str]) -> None:
    fleet = FLEET.format(listen="0.0.0.0:9108", fragments=fragments)
    own = fleet.replace('["203.0.113.10"]', '["2001:db8::10", "203.0.113.12"]')
    problems = [p for p in found(accepted(GOOD + own)) if p.key.startswith("fleet.")]
    assert [(p.key, p.value) for p in problems] == [
        ("fleet.nodes[0].addresses[1]", value) for value in told
    ]
