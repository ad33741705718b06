"""Differences between configurations, and which of them need a restart."""

import pytest

from lbfwd.config import Backend
from lbfwd.supervisor.plan import plan
from tests.unit.supervisor.build import config


def texts(*replacements: tuple[str, str]) -> list[str]:
    return [str(change) for change in plan(config(), config(*replacements)).changes]


def test_equal_configurations_change_nothing() -> None:
    assert plan(config(), config()).changes == ()


@pytest.mark.parametrize(
    ("old", "new", "change"),
    [
        ("weight = 2", "weight = 3", 'pool "web".backends "a".weight: 2 -> 3'),
        ("10.0.0.2", "10.0.0.3", 'pool "web".backends "b".address: 10.0.0.2 -> 10.0.0.3'),
        ("port = 80\n", "", 'service "http".port: 80 -> absent'),
        ('"eth0"', '"eth0", "eth1"', "node.interfaces: [eth0] -> [eth0, eth1]"),
        ('"lb1"', '"lb2"', "node.name: lb1 -> lb2"),
        ("251", "257", 'pool "web".table_size: 251 -> 257'),
        ("[[pool]]", "[flows]\nudp_idle_s = 7\n[[pool]]", "flows.udp_idle_s: 120 -> 7"),
        ('"lb1"', '"lb1"\necho = "drop"', "node.echo: reply -> drop"),
        ('"lb1"', '"lb1"\nouter_df = false', "node.outer_df: True -> False"),
        (
            '"lb1"',
            '"lb1"\nsource_entropy = ["10.99.0.0/16"]',
            "node.source_entropy: [] -> [10.99.0.0/16]",
        ),
        ("port = 80", 'port = 80\nempty = "reject"', 'service "http".empty: drop -> reject'),
        ('name = "any"', 'name = "all"', 'service "any": present -> absent'),
        ('name = "any"', 'name = "all"', 'service "all": absent -> present'),
    ],
)
def test_a_change_is_named_by_key_with_both_values(old: str, new: str, change: str) -> None:
    assert change in texts((old, new))


def test_the_order_of_the_file_is_no_change() -> None:
    a = '  { name = "a", address = "10.0.0.1", weight = 2 },\n'
    b = '  { name = "b", address = "10.0.0.2" },\n'
    assert texts((a + b, b + a)) == []


def test_backends_that_are_the_same_objects_are_no_change_wherever_they_stand() -> None:
    before = config()
    pool, *others = before.pools
    first, second = pool.backends
    new = second.model_copy(update={"name": "c"})

    def texts_of(*backends: Backend) -> list[str]:
        pools = (pool.model_copy(update={"backends": backends}), *others)
        return [str(c) for c in plan(before, before.model_copy(update={"pools": pools})).changes]

    key = 'pool "web".backends'
    assert texts_of(second, first) == []
    assert texts_of(first) == [f'{key} "b": present -> absent']
    assert texts_of(first, second, new) == [f'{key} "c": absent -> present']
    assert texts_of(new, first, second) == [f'{key} "c": absent -> present']
    assert texts_of(new, first) == [
        f'{key} "b": present -> absent',
        f'{key} "c": absent -> present',
    ]


def test_a_secret_changes_without_being_shown() -> None:
    (change,) = texts(("000102030405060708090a0b0c0d0e0f", "f" * 32))
    assert change.startswith("hash_key: ")
    assert "ffff" not in change
    assert "0001" not in change


@pytest.mark.parametrize(
    ("new", "key"),
    [
        ("cpus = [0]", "workers.cpus"),
        ("cpus = [0, 1]\nflows = 2048", "workers.flows"),
        ('cpus = [0, 1]\n[admin]\ngroup = "root"', "admin.group"),
    ],
)
def test_sizes_and_doors_need_a_restart(new: str, key: str) -> None:
    found = plan(config(), config(("cpus = [0, 1]", new)))
    (problem,) = found.problems("test.toml")
    assert problem.key == key
    assert "restart" in problem.rule


@pytest.mark.parametrize(
    ("new", "key"),
    [
        ("cpus = [1, 0]", "workers.cpus"),
        ('cpus = [0, 1]\nring = "v2"', "workers.ring"),
        ("cpus = [0, 1]\nbusy_poll_us = 50", "workers.busy_poll_us"),
        ("cpus = [0, 1]\nqdisc_bypass = true", "workers.qdisc_bypass"),
        ('cpus = [0, 1]\n[[worker]]\ncpu = 1\nring = "v2"', 'worker "cpu 1"'),
    ],
)
def test_workers_or_rings_are_replaced(new: str, key: str) -> None:
    found = plan(config(), config(("cpus = [0, 1]", new)))
    assert found.restart == ()
    assert [change.key for change in found.workers] == [key]


def test_packets_are_spread_otherwise_by_a_program() -> None:
    found = plan(config(), config(("cpus = [0, 1]", 'cpus = [0, 1]\nfanout = "cpu"')))
    assert [change.key for change in found.changes] == ["workers.fanout"]
    assert (found.restart, found.workers) == ((), ())


def test_a_worker_s_own_settings_are_named() -> None:
    own = 'cpus = [0, 1]\n[[worker]]\ncpu = 0\nbusy_poll_us = 9\n[[worker]]\ncpu = 1\nring = "v2"\n'
    other = own.replace('ring = "v2"', "rx_ring_mib = 32")
    running, new = config(("cpus = [0, 1]", own)), config(("cpus = [0, 1]", other))
    assert list(map(str, plan(running, new).workers)) == [
        'worker "cpu 1".ring: v2 -> absent',
        'worker "cpu 1".rx_ring_mib: absent -> 32',
    ]


def test_a_refusal_names_old_and_new_value() -> None:
    found = plan(config(), config(("cpus = [0, 1]", "cpus = [0]")))
    (problem,) = found.problems("test.toml")
    assert str(problem).startswith("test.toml: workers.cpus = [0] (running: [0, 1]): ")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("weight = 2", "weight = 3"),
        ('"lb1"', '"lb2"'),
        ('["eth0"]', '["eth0"]\nsource = ["10.0.0.254"]'),
        ("000102030405060708090a0b0c0d0e0f", "f" * 32),
        ("[[pool]]", "[flows]\ntcp_idle_s = 7\n[[pool]]"),
        ('"lb1"', '"lb1"\necho = "backend"\nouter_df = false'),
        ('"lb1"', '"lb1"\nsource_entropy = ["10.99.0.0/16"]'),
        ("port = 80", 'port = 80\nempty = "reject"'),
    ],
)
def test_the_rest_is_reloadable(old: str, new: str) -> None:
    found = plan(config(), config((old, new)))
    assert found.changes
    assert found.restart == ()
