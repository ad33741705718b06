"""What this machine lacks, on machines made up and on this one."""

import os
import re
import socket
from collections.abc import Collection
from pathlib import Path

import pytest

from lbfwd.config import Config, ConfigError, Problem, load, values
from lbfwd.config.machine import Machine, lacking, parse_ranges, this_machine
from lbfwd.config.translate import Places
from tests.unit.config.samples import FILE, GOOD, accepted, change

ETHERNET, LOOPBACK, TUN = 1, 772, 65534
MACHINE = Machine(
    {"eth0": ETHERNET, "lo": LOOPBACK, "tun0": TUN}, frozenset({0, 1, 2, 5}), frozenset({0, 1, 2})
)


def found_by(config: Config, flags: Collection[str] = ()) -> list[Problem]:
    found = lacking(config.node.interfaces, config.workers.cpus, MACHINE)
    return [Places({}, FILE, flags).problem(finding) for finding in found]


def test_a_fitting_machine() -> None:
    assert found_by(accepted(GOOD)) == []


def test_interfaces() -> None:
    config = accepted(change('["eth0"]', '["eth0", "eth7", "lo", "tun0"]'))
    found = found_by(config)
    assert [(p.file, p.key, p.value, p.rule) for p in found] == [
        (FILE, "node.interfaces[1]", '"eth7"', "no such interface; there are: eth0, lo, tun0"),
        (FILE, "node.interfaces[2]", '"lo"', "not an Ethernet interface (loopback)"),
        (FILE, "node.interfaces[3]", '"tun0"', "not an Ethernet interface (no link layer)"),
    ]


def test_more_workers_than_cores() -> None:
    config = accepted(change("[0]", "[0, 1, 2, 3, 5]"))
    assert [(p.key, p.value, p.rule) for p in found_by(config)] == [
        ("workers.cpus", "[0, 1, 2, 3, 5]", "5 workers, but this machine has 4 cores"),
        ("workers.cpus", "[0, 1, 2, 3, 5]", "not online: 3; online: 0-2,5"),
        (
            "workers.cpus",
            "[0, 1, 2, 3, 5]",
            "not allowed by the cpuset of this process: 5; allowed: 0-2",
        ),
    ]


def test_cpus_that_the_cpuset_keeps_from_us() -> None:
    config = accepted(change("[0]", "[5, 0]"))
    assert [(p.key, p.value, p.rule) for p in found_by(config)] == [
        (
            "workers.cpus",
            "[5, 0]",
            "not allowed by the cpuset of this process: 5; allowed: 0-2",
        )
    ]


def test_a_flag_is_named() -> None:
    config = accepted(GOOD, workers={"cpus": (9,)})
    (problem,) = found_by(config, ["cpus"])
    assert (problem.file, problem.key, problem.value) == ("command line", "--cpus", "[9]")


def test_load_reports_the_machine_with_all_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "lb.toml"
    path.write_text(
        change("port = 80", "port = 0", change('["eth0"]', '["eth7", 3]')).replace("[0]", "[7, -1]")
    )
    with pytest.raises(ConfigError) as caught:
        load(path, machine=MACHINE)
    assert [p.key for p in caught.value.problems] == [
        "node.interfaces[1]",
        "workers.cpus[1]",
        'service "web".port',
        "node.interfaces[0]",
        "workers.cpus",
    ]


@pytest.mark.parametrize(
    ("text", "cpus"), [("0\n", {0}), ("0-3\n", {0, 1, 2, 3}), ("0,2-3,8\n", {0, 2, 3, 8})]
)
def test_cpu_lists(text: str, cpus: set[int]) -> None:
    assert parse_ranges(text) == cpus


def test_this_machine() -> None:
    machine = this_machine()
    assert set(machine.interfaces) == {name for _, name in socket.if_nameindex()}
    assert machine.interfaces["lo"] == LOOPBACK
    assert os.sched_getaffinity(0) <= machine.allowed <= machine.cpus


def test_the_cpus_that_may_be_used_are_not_only_those_of_our_own_affinity() -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert before <= this_machine().allowed
        assert os.sched_getaffinity(0) == {min(before)}
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (values.MAX_WORKERS, "MAX_WORKERS"),
        (values.MAX_INTERFACES, "MAX_RX"),
        (values.MAX_SERVICES, "MAX_SERVICES"),
        (values.MAX_BACKENDS, "MAX_BACKENDS"),
        (values.MAX_MEMBERS, "MAX_MEMBERS"),
    ],
)
def test_limits_are_those_of_the_data_plane(ours: int, theirs: str) -> None:
    header = (Path(values.__file__).parents[1] / "_ring.h").read_text()
    assert re.findall(rf"#define LBFWD_{theirs} (\d+)", header) == [str(ours)]
