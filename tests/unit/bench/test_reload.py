"""What the benchmark "reload" takes a node through, read by lbfwd's own parser; its targets."""

from itertools import pairwise

import pytest

from bench.frames import PORT, VIPS
from bench.reload import CASES, FAILURE, HEALTH, Case, Round, targets
from bench.reload_node import Form, Reload, Size, config
from bench.stream import Stream
from lbfwd.config import parse

MS = 1_000_000


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if case.steps not in (FAILURE, HEALTH)],
    ids=lambda case: case.name,
)
def test_a_case_begins_where_its_last_change_ended(case: Case) -> None:
    # The node starts with Form(); a change to what is already there would publish nothing.
    weights = [Form().weight, *(step.weight for step in case.steps if isinstance(step, Form))]
    assert weights[-1] == weights[0]
    assert all(before != after for before, after in pairwise(weights))


def test_a_configuration_has_the_size_that_was_asked_for() -> None:
    parsed = parse(config(Size(services=600, pools=3, backends=7), Form()), "reload")
    assert [len(pool.backends) for pool in parsed.pools] == [7, 7, 7]
    assert len({service.vip for service in parsed.services}) == 600
    assert {service.pool for service in parsed.services} == {"p0", "p1", "p2"}
    names = [backend.name for pool in parsed.pools for backend in pool.backends]
    assert len(set(names)) == 21
    assert len({b.address for pool in parsed.pools for b in pool.backends}) == 7


def test_the_first_service_is_that_of_the_probes() -> None:
    service = parse(config(Size(10, 10, 10), Form()), "reload").services[0]
    assert (service.vip, service.protocol, service.port) == (VIPS[4], "udp", PORT)


def test_a_form_changes_the_first_backend_of_so_many_pools() -> None:
    size = Size(services=1, pools=3, backends=2)
    heavy = parse(config(size, Form(weight=5, pools=2)), "reload")
    assert [[b.weight for b in pool.backends] for pool in heavy.pools] == [[5, 1], [5, 1], [1, 1]]


def test_targets_are_judged_round_by_round() -> None:
    calm = Stream([0, 1, 2], [1 * MS, 2 * MS, 3 * MS])
    stalled = Stream([10, 11, 12], [1 * MS, 4 * MS, 0])
    reloads = tuple(("added", Reload(0, ms * MS, 50 * MS, 5 * MS)) for ms in (30, 10, 15))
    in_service, lost, gaps = targets(CASES[1], [Round(calm, stalled, reloads)])
    assert (in_service.values, in_service.reached) == ((15.0,), True)
    assert (lost.values, lost.missed) == ((1.0,), True)
    assert (gaps.values, gaps.missed) == ((3.0,), True)
