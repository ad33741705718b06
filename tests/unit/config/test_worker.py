"""``[[worker]]``: what one worker has of its own."""

import pytest

from tests.unit.config.samples import FILE, accepted, change, places, refused

AT = 'worker "cpu 0"'


def with_own(*tables: str) -> str:
    """Three workers with V2 rings, and these ``[[worker]]`` tables."""
    own = "".join(f"[[worker]]\n{table}\n" for table in tables)
    return change("[[pool]]", f"{own}[[pool]]", change("[0]", '[4, 2, 0]\nring = "v2"'))


@pytest.mark.parametrize(
    ("table", "key", "value", "rule"),
    [
        ('cpu = 0\nring = "v4"', f"{AT}.ring", '"v4"', '"v3" or "v2"'),
        ("cpu = 0\nrx_ring_mib = 0", f"{AT}.rx_ring_mib", "0", "from 1 to 4096"),
        ("cpu = 0\nrx_block_kib = 130", f"{AT}.rx_block_kib", "130", "page size"),
        ("cpu = 0\nrx_block_kib = 384", f"{AT}.rx_block_kib", "384", "ring of 64 MiB"),
        ("cpu = 0\nrx_retire_ms = 1.5", f"{AT}.rx_retire_ms", "1.5", "a whole number"),
        ('cpu = 0\nbusy_poll_us = "5"', f"{AT}.busy_poll_us", '"5"', "a whole number"),
        ("cpu = 0\ntx_ring_frames = 100", f"{AT}.tx_ring_frames", "100", "power of two"),
        ("cpu = 0\nqdisc_bypass = 1", f"{AT}.qdisc_bypass", "1", "true or false"),
        ('cpu = 0\nfanout = "cpu"', f"{AT}.fanout", '"cpu"', "shared by all workers, in [workers]"),
        ("cpu = 0\nflows = 2048", f"{AT}.flows", "2048", "flow tables, which have one size"),
        ("cpu = 0\ncpus = [0]", f"{AT}.cpus", "[0]", "a [[worker]] has one cpu"),
        ('cpu = 0\nrings = "v2"', f"{AT}.rings", '"v2"', "unknown key; did you mean ring?"),
        ("cpu = 0\nvip = 1", f"{AT}.vip", "1", "its place is [[service]]"),
        ("cpu = 7", 'worker "cpu 7".cpu', "7", "workers.cpus = [4, 2, 0]"),
        ("cpu = -1", "worker[0].cpu", "-1", "from 0 to 65535"),
        ("cpu = true", "worker[0].cpu", "true", "from 0 to 65535"),
        ('ring = "v2"', "worker[0].cpu", "(missing)", "required"),
    ],
)
def test_one_mistake_is_one_problem(table: str, key: str, value: str, rule: str) -> None:
    (problem,) = refused(with_own(table))
    assert (problem.file, problem.key, problem.value) == (FILE, key, value)
    assert rule in problem.rule


def test_a_table_that_is_no_array() -> None:
    (problem,) = refused(with_own().replace("[[pool]]", "[worker]\ncpu = 0\n[[pool]]"))
    assert (problem.key, problem.value) == ("worker", "(a table)")
    assert problem.rule == "an array of tables: write [[worker]]"


def test_a_key_in_the_wrong_place_is_told_where_it_belongs() -> None:
    (problem,) = refused(change("[node]", "[node]\nqdisc_bypass = true"))
    assert problem.rule == "unknown key; its place is [workers] or [[worker]]"


def test_a_worker_has_its_own_settings_and_the_common_ones_beside() -> None:
    config = accepted(
        with_own('cpu = 0\nring = "v3"\nrx_ring_mib = 4096\nrx_block_kib = 4096', "cpu = 4")
    )
    settings = config.settings_by_cpu
    assert list(settings) == [4, 2, 0]
    assert [own.ring for own in settings.values()] == ["v2", "v2", "v3"]
    assert [own.rx_ring_mib for own in settings.values()] == [64, 64, 4096]
    assert settings[4] == settings[2]


def test_what_is_false_or_0_replaces_the_common_value_too() -> None:
    text = with_own("cpu = 2\nqdisc_bypass = false\nbusy_poll_us = 0")
    common = {"qdisc_bypass": True, "busy_poll_us": 50}
    settings = accepted(text, workers=common).settings_by_cpu
    assert [(own.qdisc_bypass, own.busy_poll_us) for own in settings.values()] == [
        (True, 50),
        (False, 0),
        (True, 50),
    ]


def test_blocks_must_fill_a_ring_wherever_the_two_are_set() -> None:
    assert places(with_own("cpu = 2\nrx_ring_mib = 1"), workers={"rx_block_kib": 1024}) == [
        ('worker "cpu 2".rx_ring_mib', "1")
    ]


def test_two_tables_for_one_worker() -> None:
    (problem,) = refused(with_own("cpu = 2", 'cpu = 2\nring = "v3"'))
    assert (problem.key, problem.value) == ("worker[1].cpu", "2")
    assert problem.rule == "a worker has one [[worker]]; worker[0] is for this cpu already"


def test_nothing_follows_from_cpus_that_are_wrong_themselves() -> None:
    text = with_own("cpu = 3\nrx_retire_ms = 2").replace("[4, 2, 0]", "[4, -1]")
    assert places(text) == [("workers.cpus[1]", "-1")]
