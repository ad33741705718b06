"""What a result says of the machine."""

import os

from bench.machine import machine


def test_a_benchmark_that_keeps_to_one_core_does_not_make_the_machine_smaller() -> None:
    mine = os.sched_getaffinity(0)
    before = machine()
    os.sched_setaffinity(0, {min(mine)})
    try:
        assert machine() == before
    finally:
        os.sched_setaffinity(0, mine)
