"""Warnings about settings of workers, on machines made up."""

import os
from pathlib import Path

import pytest

from lbfwd.config import warn_workers
from lbfwd.config.hardware import Hardware, parse_mask, this_hardware
from lbfwd.config.warn import warnings
from tests.unit.config.samples import FILE, accepted, change

GIB = 2**30
MACHINE = Hardware(
    cpus=frozenset(range(8)),
    supervisor_cpus=frozenset(range(8)),
    siblings={cpu: frozenset({cpu, cpu ^ 4}) for cpu in range(8)},
    memory_bytes=16 * GIB,
    queues={"eth0": 4},
)


def found(keys: str, own: str = "", machine: Hardware = MACHINE, **flags: object) -> list[str]:
    """What is said of these keys of ``[workers]`` and these ``[[worker]]`` tables."""
    text = change("cpus = [0]", keys, change("[[pool]]", f"{own}\n[[pool]]"))
    config = accepted(text, workers=flags)
    problems = warnings(
        config,
        FILE,
        local=(),
        shares=lambda *_: (32769, 32768),
        hardware=machine,
        flags=tuple(flags),
    )
    return [str(problem).removeprefix(f"{FILE}: ") for problem in problems]


def the_only(keys: str, own: str = "", machine: Hardware = MACHINE, **flags: object) -> str:
    (text,) = found(keys, own, machine, **flags)
    return text


def test_nothing_to_say() -> None:
    assert found("cpus = [1, 2, 3]") == []
    assert found('cpus = [1, 2, 3]\nring = "v2"\nbusy_poll_us = 50') == []
    assert found("cpus = [0, 5]", machine=Hardware()) == []


def test_keys_of_blocks_mean_nothing_to_v2() -> None:
    both = found('cpus = [1]\nring = "v2"\nrx_block_kib = 256\nrx_retire_ms = 2')
    assert [text.split(": ")[0] for text in both] == [
        "workers.rx_block_kib = 256",
        "workers.rx_retire_ms = 2",
    ]
    assert all('no effect with ring = "v2"' in text for text in both)


def test_a_key_that_one_worker_uses_is_not_said_to_be_useless() -> None:
    own = '[[worker]]\ncpu = 2\nring = "v3"'
    assert found('cpus = [1, 2]\nring = "v2"\nrx_retire_ms = 2', own) == []
    own = '[[worker]]\ncpu = 2\nring = "v3"\nrx_retire_ms = 4'
    assert the_only('cpus = [1, 2]\nring = "v2"\nrx_retire_ms = 2', own).startswith(
        "workers.rx_retire_ms = 2: no effect"
    )
    own = '[[worker]]\ncpu = 2\nring = "v2"\nrx_retire_ms = 1'
    assert the_only("cpus = [1, 2]\nrx_retire_ms = 2", own).startswith(
        'worker "cpu 2".rx_retire_ms = 1: no effect'
    )


def test_a_ring_that_is_full_before_its_worker_is_replaced() -> None:
    text = the_only("cpus = [1, 2]\nrx_ring_mib = 64\nrx_block_kib = 1024")
    assert text.startswith("workers.rx_block_kib = 1024: 64 blocks (rx_ring_mib / rx_block_kib)")
    assert "full after 64 ms" in text
    assert found("cpus = [1]\nrx_ring_mib = 64\nrx_block_kib = 1024\nrx_retire_ms = 10") == []
    own = "[[worker]]\ncpu = 2\nrx_ring_mib = 1"
    assert "full after 8 ms" in the_only("cpus = [1, 2]", own)


@pytest.mark.parametrize(("frames", "warned"), [(256, True), (512, False)])
def test_a_short_tx_ring(frames: int, warned: bool) -> None:
    texts = found(f"cpus = [1, 2]\ntx_ring_frames = {frames}")
    assert [text.split(":")[0] for text in texts] == ["workers.tx_ring_frames = 256"] * warned


def test_polling_that_leaves_the_supervisor_no_cpu() -> None:
    pinned = Hardware(cpus=frozenset(range(8)), supervisor_cpus=frozenset({1, 2}))
    keys = 'cpus = [1, 2]\nring = "v2"\nbusy_poll_us = 50'
    text = the_only(keys, machine=pinned)
    assert text.startswith("workers.busy_poll_us = 50: ")
    assert "every cpu that the supervisor may use (1-2)" in text
    own = "[[worker]]\ncpu = 2\nbusy_poll_us = 0"
    assert found(keys, own, pinned) == []
    assert found(keys, machine=MACHINE) == []


def test_polling_for_less_than_a_block_s_time() -> None:
    text = the_only("cpus = [1, 2]", "[[worker]]\ncpu = 2\nbusy_poll_us = 999")
    assert text.startswith('worker "cpu 2".busy_poll_us = 999: a block of ring = "v3"')
    assert found("cpus = [1]\nbusy_poll_us = 1000") == []


def test_cpu_0_while_another_is_free() -> None:
    text = the_only("cpus = [0, 2]")
    assert text.startswith("workers.cpus = [0, 2]: cpu 0 does most")
    assert text.endswith("cpu 1 has none")
    everything = Hardware(cpus=frozenset({0, 1}))
    assert found("cpus = [0, 1]", machine=everything) == []


def test_two_workers_on_one_core() -> None:
    text = the_only("cpus = [1, 2, 5]")
    assert text.startswith("workers.cpus = [1, 2, 5]: cpus 1 and 5 are threads of one core")


@pytest.mark.parametrize(
    ("cpus", "what"),
    [
        ([1, 2, 3, 8, 9], "no packets for the workers on cpus 9"),
        ([1, 2, 3], "some workers get the packets of more queues than others"),
        ([1, 2], ""),
        ([1, 2, 3, 8], ""),
    ],
)
def test_hardware_queues_and_workers(cpus: list[int], what: str) -> None:
    texts = found(f'cpus = {cpus}\nfanout = "queue"')
    assert len(texts) == bool(what)
    assert all(text.startswith('workers.fanout = "queue": eth0 has 4 receive') for text in texts)
    assert all(what in text for text in texts)
    assert found(f"cpus = {cpus}") == []


def test_steering_by_the_kernel_to_cpus_without_a_worker() -> None:
    steered = Hardware(rps_cpus={"eth0": frozenset({1, 2, 6, 7})})
    text = the_only('cpus = [1, 2]\nfanout = "cpu"', machine=steered)
    assert text.startswith('workers.fanout = "cpu": receive packet steering (RPS) of eth0')
    assert "cpus without a worker (6-7)" in text
    assert found('cpus = [1, 2, 6, 7]\nfanout = "cpu"', machine=steered) == []
    assert found("cpus = [1, 2]", machine=steered) == []


def test_rings_and_tables_beyond_half_of_the_memory() -> None:
    # 2 workers: 2 x (4096 MiB + 4096 frames of 2 KiB); 2 x 24 bytes x 200,000,000 / 16 MiB
    text = the_only("cpus = [1, 2]\nrx_ring_mib = 4096")
    assert text.startswith("workers.rx_ring_mib = 4096: the rings of all workers")
    assert "take 8208 MiB" in text
    assert "16384 MiB" in text
    text = the_only("cpus = [1, 2, 3]\nflows = 134217728")
    assert text.startswith("workers.flows = 134217728: at 24 bytes a flow")
    assert "take 9216 MiB" in text
    assert found("cpus = [1, 2]\nrx_ring_mib = 4088") == []


def test_frames_that_tcpdump_does_not_see() -> None:
    text = the_only("cpus = [1, 2]", "[[worker]]\ncpu = 1\nqdisc_bypass = true")
    assert text.startswith('worker "cpu 1".qdisc_bypass = true: frames pass by the queueing')


def test_a_flag_is_named_as_such() -> None:
    assert the_only("cpus = [1]", qdisc_bypass=True).startswith(
        "command line: --qdisc-bypass = true"
    )


def test_the_burst_is_that_of_the_data_plane() -> None:
    header = (Path(warn_workers.__file__).parents[1] / "_ring.h").read_text()
    assert f"#define LBFWD_BURST {warn_workers.BURST} " in header


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("0\n", set()), ("3\n", {0, 1}), ("1,00000000\n", {32}), ("80000001,00000004", {2, 32, 63})],
)
def test_cpu_masks(text: str, cpus: set[int]) -> None:
    assert parse_mask(text) == cpus


def test_this_machine() -> None:
    here = this_hardware(["lo", "no-such-device"])
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert abs(here.memory_bytes - pages) < pages / 10
    assert here.supervisor_cpus == os.sched_getaffinity(0)
    assert here.supervisor_cpus <= here.cpus
    assert all(cpu in siblings for cpu, siblings in here.siblings.items())
    assert here.queues == {}  # loopback tells nothing of its queues
    assert here.rps_cpus == {"lo": frozenset(), "no-such-device": frozenset()}
